"""``/api/usage``: everybody sees their own, a tenant's administrators the tenant's, and nobody anything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from serve_app.domain.usage import Purpose, Usage, UsageRow
from tests.unit.ingress.admin_bench import AdminBench
from tests.unit.ingress.asgi import Client

DAY = date(2026, 3, 4)
NEXT = DAY + timedelta(days=1)
ELSEWHERE = 7_654_321
"""Tokens that another tenant has used, in a number that nothing else holds."""


@pytest.fixture
async def bench() -> AsyncIterator[AdminBench]:
    bench = AdminBench()
    await bench.make_tenants()
    yield bench


async def consume(
    bench: AdminBench,
    user: str,
    tokens: int,
    *,
    tenant: str = "acme",
    day: date = DAY,
    model: str = "m1",
    conversation: str = "c1",
    purpose: Purpose = "turn",
) -> None:
    usage = Usage(
        input_tokens=tokens,
        output_tokens=1,
        cached_input_tokens=tokens // 2,
        cost_microusd=tokens * 1_000,
        estimated=tokens == 7,
    )
    row = UsageRow(
        tenant_id=tenant,
        user_id=user,
        conversation_id=conversation,
        turn_id=f"{conversation}.{tokens}",
        model_id=model,
        usage=usage,
        at=datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
        purpose=purpose,
    )
    await bench.stages.store.add_usage([row])


@pytest.fixture
async def consumed(bench: AdminBench) -> AdminBench:
    await consume(bench, "ana", 1)
    await consume(bench, "ana", 2, day=NEXT, model="m2", conversation="c2")
    await consume(bench, "ana", 4, day=NEXT, model="small", conversation="c2", purpose="title")
    await consume(bench, "ben", 7)
    await consume(bench, "ana", ELSEWHERE, tenant="globex")
    return bench


async def ask(client: Client, path: str = "/api/usage", **query: object) -> dict[str, Any]:
    given = {"from": DAY, "to": NEXT, **query}
    reply = await client.request("GET", path, query="&".join(f"{name}={value}" for name, value in given.items()))
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


def groups(report: dict[str, Any]) -> dict[str | None, tuple[int, int]]:
    """Turns and input tokens by group."""
    return {item["group"]: (item["turns"], item["input_tokens"]) for item in report["items"]}


async def test_everybody_sees_their_own_by_day_model_and_conversation(consumed: AdminBench) -> None:
    ana = consumed.user("acme", "ana", "sales")
    report = await ask(ana)
    assert (report["tenant_id"], report["user_id"], report["group_by"]) == ("acme", "ana", "day")
    assert (report["first_day"], report["last_day"]) == ("2026-03-04", "2026-03-05")
    assert groups(report) == {"2026-03-04": (1, 1), "2026-03-05": (1, 6)}
    assert groups(await ask(ana, group_by="model")) == {"m1": (1, 1), "m2": (1, 2), "small": (0, 4)}
    assert groups(await ask(ana, group_by="conversation")) == {"c1": (1, 1), "c2": (1, 6)}
    assert groups(await ask(ana, group_by="conversation", to=DAY)) == {"c1": (1, 1)}


async def test_tokens_and_cost_are_told_by_group_and_in_all(consumed: AdminBench) -> None:
    report = await ask(consumed.user("acme", "ben", "sales"))
    what = {
        "input_tokens": 7,
        "output_tokens": 1,
        "cached_input_tokens": 3,
        "reasoning_tokens": 0,
        "cost_usd": 0.007,
        "estimated": True,
        "turns": 1,
    }
    assert report["items"] == [{"group": "2026-03-04", **what}]
    assert report["total"] == what


async def test_a_tenants_administrator_sees_the_tenant_by_user_and_model(consumed: AdminBench) -> None:
    boss = consumed.admin_of("acme")
    assert groups(await ask(boss)) == {}
    report = await ask(boss, scope="tenant", group_by="user")
    assert report["user_id"] is None
    assert groups(report) == {"ana": (2, 7), "ben": (1, 7)}
    assert groups(await ask(boss, scope="tenant", group_by="model")) == {"m1": (2, 8), "m2": (1, 2), "small": (0, 4)}
    of_ana = await ask(boss, "/api/admin/usage/sums", group_by="conversation", user_id="ana")
    assert groups(of_ana) == {"c1": (1, 1), "c2": (1, 6)}
    assert groups(await ask(boss, "/api/admin/usage/sums")) == {"ana": (2, 7), "ben": (1, 7)}
    assert groups(await ask(consumed.operator, "/api/admin/usage/sums", tenant_id="globex")) == {"ana": (1, ELSEWHERE)}


async def test_pages_lead_through_all_groups_under_one_total(consumed: AdminBench) -> None:
    boss = consumed.admin_of("acme")
    first = await ask(boss, scope="tenant", group_by="user", limit=1)
    second = await ask(boss, scope="tenant", group_by="user", limit=1, cursor=first["next_cursor"])
    assert [*groups(first), *groups(second)] == ["ana", "ben"]
    assert second["next_cursor"] is None
    assert first["total"] == second["total"]
    assert first["total"]["input_tokens"] == 14


@pytest.mark.parametrize(
    ("who", "query", "status"),
    [
        ("ana", "scope=tenant", 403),
        ("boss", "scope=tenant&group_by=conversation", 422),
        ("ana", "from=2026-01-01&to=2026-04-03", 422),
        ("ana", "from=2026-03-05&to=2026-03-04", 422),
        ("ana", "from=soon", 422),
        ("ana", "to=0001-01-02", 200),
        ("ana", "limit=0", 422),
        ("ana", "limit=201", 422),
        ("ana", "cursor=nonsense", 422),
        ("ana", "group_by=tenant", 422),
    ],
)
async def test_what_is_not_ones_own_or_too_much_is_refused(
    consumed: AdminBench, who: str, query: str, status: int
) -> None:
    client = consumed.admin_of("acme") if who == "boss" else consumed.user("acme", who, "sales")
    reply = await client.request("GET", "/api/usage", query=query)
    assert reply.status == status, reply
    assert str(ELSEWHERE).encode() not in reply.body


async def test_another_tenants_and_anothers_numbers_are_not_to_be_had(consumed: AdminBench) -> None:
    query = "scope={}&tenant_id=globex&user_id=ben&from=2026-03-04&to=2026-03-05"
    own = await consumed.user("acme", "ana", "sales").request("GET", "/api/usage", query=query.format("me"))
    assert (own.json()["user_id"], own.json()["total"]["input_tokens"]) == ("ana", 7)
    tenants = await consumed.admin_of("acme").request("GET", "/api/usage", query=query.format("tenant"))
    assert (tenants.json()["tenant_id"], tenants.json()["total"]["input_tokens"]) == ("acme", 14)
    for tenant in ("globex", "nowhere"):
        reply = await consumed.admin_of("acme").request("GET", "/api/admin/usage/sums", query=f"tenant_id={tenant}")
        assert reply.status == 404
    assert (await consumed.user("acme", "ana", "sales").request("GET", "/api/admin/usage/sums")).status == 403


async def test_by_default_the_last_thirty_days_are_added_up(bench: AdminBench) -> None:
    today = datetime.now(UTC).date()
    for tokens, days in ((1, 0), (2, 28), (4, 40)):
        await consume(bench, "ana", tokens, day=today - timedelta(days=days))
    reply = await bench.user("acme", "ana", "sales").request("GET", "/api/usage")
    assert reply.json()["total"]["input_tokens"] == 3


async def test_the_administrators_list_tells_what_each_row_is_for(consumed: AdminBench) -> None:
    page = (await consumed.admin_of("acme").request("GET", "/api/admin/usage", query=f"day={NEXT}")).json()
    told = {
        row["purpose"]: (row["conversation_id"], row["model_id"], row["input_tokens"], row["cost_usd"])
        for row in page["items"]
    }
    assert told == {"turn": ("c2", "m2", 2, 0.002), "title": ("c2", "small", 4, 0.004)}
