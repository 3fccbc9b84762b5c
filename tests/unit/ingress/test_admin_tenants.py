"""Tenants: who may see and change which, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from serve_app.domain.access import AuditEntry
from serve_app.errors import Overloaded
from tests.unit.ingress.admin_bench import ADMIN_TOKEN, AdminBench, same_apart_from_ids
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.test_sse import asking

ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/api/admin/tenants", None),
    ("POST", "/api/admin/tenants", {"tenant_id": "new"}),
    ("GET", "/api/admin/tenants/{tenant}", None),
    ("PATCH", "/api/admin/tenants/{tenant}", {"name": "Mine"}),
    ("DELETE", "/api/admin/tenants/{tenant}", None),
    ("GET", "/api/admin/limits?tenant_id={tenant}", None),
    ("PATCH", "/api/admin/limits?tenant_id={tenant}", {"user_limits": {}}),
    ("GET", "/api/admin/users?tenant_id={tenant}", None),
    ("POST", "/api/admin/users?tenant_id={tenant}", {"user_id": "eve"}),
    ("GET", "/api/admin/users/ana?tenant_id={tenant}", None),
    ("PATCH", "/api/admin/users/ana?tenant_id={tenant}", {"name": "Mine"}),
    ("DELETE", "/api/admin/users/ana?tenant_id={tenant}", None),
    ("POST", "/api/admin/users/ana/subjects?tenant_id={tenant}", {"subject": "mine"}),
    ("DELETE", "/api/admin/users/ana/subjects?subject=s&tenant_id={tenant}", None),
    ("GET", "/api/admin/provisioning?tenant_id={tenant}", None),
    ("POST", "/api/admin/provisioning?tenant_id={tenant}", {"match": "domain", "value": "evil.test"}),
    ("DELETE", "/api/admin/provisioning?match=domain&value=x.test&tenant_id={tenant}", None),
    ("GET", "/api/admin/provider-keys?tenant_id={tenant}", None),
    ("PUT", "/api/admin/provider-keys/openai?tenant_id={tenant}", {"key": "sk-0123456789"}),
    ("DELETE", "/api/admin/provider-keys/openai?tenant_id={tenant}", None),
    ("POST", "/api/admin/provider-keys/rotate", None),
    ("GET", "/api/admin/audit?tenant_id={tenant}", None),
    ("GET", "/api/admin/usage?tenant_id={tenant}", None),
    ("GET", "/api/admin/usage/sums?tenant_id={tenant}", None),
    ("POST", "/api/admin/users/ana/reset?tenant_id={tenant}", {}),
]
PLATFORM_ONLY = {("DELETE", "/api/admin/tenants/{tenant}")}


@pytest.fixture
async def bench() -> AsyncIterator[AdminBench]:
    bench = AdminBench()
    await bench.make_tenants()
    yield bench


async def ask(client: Client, method: str, address: str, body: Any, tenant: str = "globex") -> Any:
    path, _, query = address.format(tenant=tenant).partition("?")
    return await client.request(method, path, body, query=query)


@pytest.mark.parametrize("roles", ["", "sales", "management,administrator,admins"])
async def test_nobody_but_administrators_gets_in(bench: AdminBench, roles: str) -> None:
    mallory = bench.user("acme", "mallory", roles)
    for method, address, body in ROUTES:
        reply = await ask(mallory, method, address, body, "acme")
        assert (reply.status, reply.json()["code"]) == (403, "not_permitted"), (method, address)


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", f"Bearer {ADMIN_TOKEN[:-1]}", f"Bearer {ADMIN_TOKEN}x", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN],
)
async def test_only_the_whole_token_of_the_platform_counts(bench: AdminBench, authorization: str) -> None:
    wrong = Client(bench.app, {"authorization": authorization, "x-dev-roles": "sales"})
    assert (await wrong.request("GET", "/api/admin/tenants")).status == 403
    assert (await bench.operator.request("GET", "/api/admin/tenants")).status == 200


async def test_an_empty_token_is_nobodys_where_none_is_set() -> None:
    bench = AdminBench(more={"admin_token": None})
    for sent in ("Bearer ", "Bearer", f"Bearer {ADMIN_TOKEN}"):
        client = Client(bench.app, {"authorization": sent, "x-dev-roles": ""})
        assert (await client.request("GET", "/api/admin/tenants")).status == 403


async def test_white_space_around_the_servers_token_does_not_count(bench: AdminBench) -> None:
    bench.more["admin_token"] = SecretStr(f"{ADMIN_TOKEN}\n")  # as a mounted file often ends
    bench.app = bench.make_app(None)
    assert (await bench.operator.request("GET", "/api/admin/tenants")).status == 200


async def test_the_platforms_token_is_good_for_administration_only(bench: AdminBench) -> None:
    who = (await bench.operator.request("GET", "/api/authz")).json()
    assert (who["user_id"], who["roles"]) == ("dev", ["sales"])


async def test_another_tenants_id_is_answered_as_one_that_nobody_has(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    for method, address, body in ROUTES:
        if "{tenant}" in address:
            foreign = await ask(admin, method, address, body, "globex")
            missing = await ask(admin, method, address, body, "globax")
            assert foreign.status == (403 if (method, address) in PLATFORM_ONLY else 404), (method, address)
            assert same_apart_from_ids(foreign, missing), (method, address)


async def test_an_administrator_sees_its_own_tenant_only(bench: AdminBench) -> None:
    listed = (await bench.admin_of("acme").request("GET", "/api/admin/tenants")).json()
    assert [tenant["tenant_id"] for tenant in listed["items"]] == ["acme"]
    everybody = (await bench.operator.request("GET", "/api/admin/tenants")).json()
    assert [tenant["tenant_id"] for tenant in everybody["items"]] == ["acme", "globex"]
    own = (await bench.admin_of("acme").request("GET", "/api/admin/limits")).json()
    assert own["tenant_id"] == "acme"


async def test_the_operator_has_to_say_which_tenant(bench: AdminBench) -> None:
    reply = await bench.operator.request("GET", "/api/admin/users")
    assert (reply.status, reply.json()["detail"]) == (422, "tenant_id: say which tenant.")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/admin/tenants/acme", {"disabled": True}),
        ("/api/admin/tenants/acme", {"denied_tools": []}),
        ("/api/admin/tenants/acme", {"roles_from_token": True}),
        ("/api/admin/tenants/acme", {"name": "Acme", "disabled": False}),
        ("/api/admin/limits", {"tenant_limits": {"tokens_per_minute": 1_000_000_000}}),
    ],
)
async def test_what_bounds_a_tenant_is_not_its_own_administrators_to_move(
    bench: AdminBench, path: str, body: Any
) -> None:
    before = (await bench.operator.request("GET", "/api/admin/tenants/acme")).json()
    assert (await bench.admin_of("acme").request("PATCH", path, body)).status == 403
    assert (await bench.operator.request("GET", "/api/admin/tenants/acme")).json() == before


async def test_settings_are_changed_one_by_one_and_shown_as_they_are(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    for body in (
        {"name": "Acme"},
        {"default_tools": ["crm", "hr.leave_balance", "crm"]},
        {"choices": {"model_id": "large", "temperature": 0.2}},
    ):
        assert (await admin.request("PATCH", "/api/admin/tenants/acme", body)).status == 200
    limits = {"user_limits": {"requests_per_minute": 60}}
    assert (await admin.request("PATCH", "/api/admin/limits", limits)).status == 200
    shown = (await admin.request("GET", "/api/admin/tenants/acme")).json()
    assert shown["name"] == "Acme"
    assert shown["default_tools"] == ["crm", "hr.leave_balance"]
    assert shown["choices"] == {"model_id": "large", "temperature": 0.2, "max_output_tokens": None}
    assert shown["user_limits"]["requests_per_minute"] == 60
    cleared = await admin.request("PATCH", "/api/admin/tenants/acme", {"default_tools": None, "choices": {}})
    assert cleared.json()["default_tools"] is None
    assert cleared.json()["choices"]["model_id"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tenant_id": "other"},
        {"name": None},
        {"disabled": None},
        {"disabled": "yes, please"},
        {"default_tools": ["two words"]},
        {"default_tools": [""]},
        {"choices": None},
        {"choices": {"temperature": 3}},
        {"choices": {"model": "large"}},
        {"choices": {"model_id": "a model that there is not"}},
        {"user_limits": {"requests_per_minute": 1}},
        {"etag": "x"},
        [],
        "x",
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_and_changes_nothing(bench: AdminBench, body: Any) -> None:
    before = (await bench.operator.request("GET", "/api/admin/tenants/acme")).json()
    reply = await bench.operator.request("PATCH", "/api/admin/tenants/acme", body)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")
    assert (await bench.operator.request("GET", "/api/admin/tenants/acme")).json() == before


@pytest.mark.parametrize("tenant_id", ["", "..", "a/b", "ä", "x" * 65, "a b", None])
async def test_a_tenants_id_is_one_that_an_address_can_hold(bench: AdminBench, tenant_id: Any) -> None:
    reply = await bench.operator.request("POST", "/api/admin/tenants", {"tenant_id": tenant_id})
    assert reply.status == 422


async def test_a_tenant_is_made_once(bench: AdminBench) -> None:
    reply = await bench.operator.request("POST", "/api/admin/tenants", {"tenant_id": "acme"})
    assert (reply.status, reply.json()["detail"]) == (409, "There is a tenant of this id.")


async def test_a_change_over_one_that_was_not_read_is_refused(bench: AdminBench) -> None:
    read = await bench.operator.request("GET", "/api/admin/tenants/acme")
    etag = read.headers["etag"]
    assert etag == f'"{read.json()["etag"]}"'
    first = await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"name": "A"}, headers={"if-match": etag})
    assert first.status == 200
    for method, body in (("PATCH", {"name": "B"}), ("DELETE", None)):
        late = await bench.operator.request(method, "/api/admin/tenants/acme", body, headers={"if-match": etag})
        assert (late.status, late.json()["code"]) == (409, "conflict")
    assert (await bench.operator.request("GET", "/api/admin/tenants/acme")).json()["name"] == "A"


async def test_each_change_leaves_who_what_and_how_it_came_out(bench: AdminBench) -> None:
    await bench.admin_of("acme").request(
        "PATCH", "/api/admin/tenants/acme", {"name": "Acme"}, headers={"x-request-id": "r-7"}
    )
    await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"disabled": True})
    newest, older, made = await bench.audit()
    assert (newest["actor"], newest["action"], newest["target"]) == ("/operator", "tenant.change", "tenant:acme")
    assert (newest["before"], newest["after"], newest["outcome"]) == ({"disabled": False}, {"disabled": True}, "done")
    assert (older["actor"], older["request_id"], older["after"]) == ("acme/boss", "r-7", {"name": "Acme"})
    assert made["action"] == "tenant.create"
    assert [entry["action"] for entry in await bench.audit("globex")] == ["tenant.create"]


async def test_a_change_that_changes_nothing_leaves_nothing(bench: AdminBench) -> None:
    before = await bench.audit()
    same = await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"disabled": False})
    assert same.status == 200
    assert await bench.audit() == before


async def test_the_audit_log_is_read_page_by_page_newest_first(bench: AdminBench) -> None:
    for number in range(5):
        await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"name": f"n{number}"})
    names, query = [], "tenant_id=acme&limit=2"
    while query:
        page = (await bench.operator.request("GET", "/api/admin/audit", query=query)).json()
        names += [(entry["after"] or {}).get("name") for entry in page["items"]]
        query = f"tenant_id=acme&limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert names == ["n4", "n3", "n2", "n1", "n0", None]


async def test_a_change_is_not_made_where_it_cannot_be_written_down(
    bench: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: AuditEntry) -> None:
        raise Overloaded("The store is full.")

    monkeypatch.setattr(bench.directory, "save_audit", full)
    assert (await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"name": "A"})).status == 503
    assert (await bench.operator.request("GET", "/api/admin/tenants/acme")).json()["name"] == ""


async def test_usage_is_listed_by_day_to_the_tenants_own_administrator(bench: AdminBench) -> None:
    days = {datetime.now(UTC).date()}
    await bench.user("acme", "ana", "sales").request("POST", "/api/chat", asking("Hi", "c1"))
    await bench.user("globex", "bob", "sales").request("POST", "/api/chat", asking("Hi", "c1"))
    rows = []
    for day in days | {datetime.now(UTC).date()}:  # two, around midnight
        page = (await bench.admin_of("acme").request("GET", "/api/admin/usage", query=f"day={day}")).json()
        assert page["tenant_id"] == "acme"
        rows += page["items"]
    assert [(row["user_id"], row["input_tokens"], row["output_tokens"]) for row in rows] == [("ana", 5, 2)]
    other = (await bench.admin_of("acme").request("GET", "/api/admin/usage", query="day=2020-02-29")).json()
    assert (other["day"], other["items"]) == ("2020-02-29", [])
    assert (await bench.admin_of("acme").request("GET", "/api/admin/usage", query="day=soon")).status == 422


async def test_a_change_whose_outcome_cannot_be_written_has_been_made(
    bench: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[AuditEntry] = []
    save = bench.directory.save_audit

    async def first_only(entry: AuditEntry) -> None:
        if written:
            raise Overloaded("The store is full.")
        written.append(entry)
        await save(entry)

    monkeypatch.setattr(bench.directory, "save_audit", first_only)
    assert (await bench.operator.request("PATCH", "/api/admin/tenants/acme", {"name": "A"})).status == 200
    assert [entry["outcome"] for entry in await bench.audit()] == ["begun", "done"]


async def test_a_deleted_tenants_log_stays(bench: AdminBench) -> None:
    assert (await bench.operator.request("DELETE", "/api/admin/tenants/acme")).status == 204
    assert (await bench.operator.request("GET", "/api/admin/tenants/acme")).status == 404
    assert [entry["action"] for entry in await bench.audit()] == ["tenant.delete", "tenant.create"]


async def test_without_administration_there_is_no_such_route(bench: AdminBench) -> None:
    bench.more["administration"] = None
    bench.app = bench.make_app(None)
    reply = await bench.operator.request("GET", "/api/admin/tenants")
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


async def test_a_blank_token_of_the_platform_lets_nobody_in() -> None:
    bench = AdminBench(more={"admin_token": SecretStr(" " * 40)})
    client = Client(bench.app, {"authorization": "Bearer "})
    assert (await client.request("POST", "/api/admin/tenants", {"tenant_id": "t"})).status == 403
