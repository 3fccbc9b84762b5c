"""What a tenant's turns consumed on a day, as every adapter lists it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from serve_app.domain.identity import Principal
from serve_app.domain.usage import Grouping, ModelUsage, Usage, UsageRow, UsageSum
from serve_app.errors import InvalidInput, NotFound
from serve_app.storage.port import MAX_USAGE_DAYS, Store
from tests.contract.store_inputs import (
    ANNA,
    OTHERS,
    Clock,
    completed,
    conversation_key,
    finish,
    only,
    response,
    running,
    share,
)

DORA = Principal(tenant_id="globex", user_id="dora")


def today(clock: Clock) -> date:
    return datetime.fromtimestamp(clock(), UTC).date()


async def listed(store: Store, tenant: str, day: date, *, limit: int = 50) -> list[str]:
    """The turns of all pages."""
    turns: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.list_usage(tenant, day, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        turns += [row.turn_id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return turns


async def test_a_turn_that_has_ended_is_listed_with_what_it_consumed(store: Store, clock: Clock) -> None:
    key = await completed(store, conversation_key("c1"))
    await running(store, conversation_key("c2"))
    (row,) = (await store.list_usage("acme", today(clock))).items
    assert (row.tenant_id, row.user_id, row.conversation_id, row.turn_id) == ("acme", "anna", "c1", key.turn_id)
    assert (row.model_id, row.usage) == ("m1", Usage(input_tokens=11, output_tokens=7))
    assert row.at == datetime.fromtimestamp(clock(), UTC)


async def test_a_tenant_and_a_day_list_their_own(store: Store, clock: Clock) -> None:
    first = await completed(store, conversation_key("c1"))
    clock.advance(86_400)
    second = await completed(store, conversation_key("c1"), "And?")
    other = await completed(store, conversation_key("c1", DORA))
    day = today(clock)
    assert await listed(store, "acme", day) == [second.turn_id]
    assert await listed(store, "acme", day - timedelta(days=1)) == [first.turn_id]
    assert await listed(store, "globex", day) == [other.turn_id]
    for tenant, empty in (("acme", day + timedelta(days=1)), ("globex", day - timedelta(days=1)), ("nobody", day)):
        assert await listed(store, tenant, empty) == []


async def test_a_day_begins_and_ends_at_midnight_utc(store: Store, clock: Clock) -> None:
    midnight = datetime(2026, 3, 5, tzinfo=UTC).timestamp()
    clock.now = midnight - 0.001
    before = await completed(store, conversation_key("c1"))
    clock.now = midnight
    after = await completed(store, conversation_key("c1"), "And?")
    assert await listed(store, "acme", date(2026, 3, 4)) == [before.turn_id]
    assert await listed(store, "acme", date(2026, 3, 5)) == [after.turn_id]


async def test_usage_is_listed_page_by_page_each_turn_once(store: Store, clock: Clock) -> None:
    made = {(await completed(store, conversation_key("c1"), f"Number {number}")).turn_id for number in range(5)}
    turns = await listed(store, "acme", today(clock), limit=2)
    assert len(turns) == 5
    assert set(turns) == made


async def test_usage_outlives_its_conversation(store: Store, clock: Clock) -> None:
    key = await completed(store, conversation_key("c1"))
    await store.delete_conversation(conversation_key("c1"))
    assert await listed(store, "acme", today(clock)) == [key.turn_id]


async def test_a_cursor_of_another_day_or_listing_is_refused(store: Store, clock: Clock) -> None:
    for number in range(2):
        await completed(store, conversation_key(f"c{number}"))
    day = today(clock)
    good = (await store.list_usage("acme", day, limit=1)).next_cursor
    for number in range(2):
        await store.save_record("acme", "user", f"u{number}", b"{}")
    other = (await store.list_records("acme", "user", limit=1)).next_cursor
    assert good is not None
    assert other is not None
    for cursor, asked in ((good, day + timedelta(days=1)), (other, day), ("nonsense", day)):
        with pytest.raises(InvalidInput):
            await store.list_usage("acme", asked, cursor=cursor)
    with pytest.raises(InvalidInput):
        await store.list_usage("acme", day, limit=0)


# What is kept of each


WHOLE = Usage(
    input_tokens=1_000,
    output_tokens=200,
    cached_input_tokens=600,
    reasoning_tokens=50,
    cost_microusd=4_321,
    estimated=True,
)


def a_title(clock: Clock, usage: Usage = WHOLE, model_id: str | None = "small") -> UsageRow:
    return UsageRow(
        tenant_id="acme",
        user_id="anna",
        conversation_id="c1",
        turn_id="c1.01JC0000000000000000000001",
        model_id=model_id,
        usage=usage,
        at=datetime.fromtimestamp(clock(), UTC),
        purpose="title",
    )


async def spent(
    store: Store,
    conversation_id: str,
    usage: Usage,
    *,
    principal: Principal = ANNA,
    model_id: str = "m1",
    earlier: tuple[ModelUsage, ...] = (),
) -> str:
    """A turn that has ended; its id."""
    key = await running(store, conversation_key(conversation_id, principal))
    end = replace(finish(key), usage=usage, model_id=model_id, earlier=earlier)
    assert only(await store.append([share(key, response(key, 2), finish=end)])).status == "ok"
    return key.turn_id


async def summed(
    store: Store, by: Grouping, clock: Clock, *, days: int = 1, tenant: str = "acme", user: str | None = None
) -> dict[str, tuple[int, Usage]]:
    """All pages, two groups at a time."""
    last = today(clock)
    found: list[UsageSum] = []
    cursor: str | None = None
    while True:
        page = await store.sum_usage(
            tenant, last - timedelta(days=days - 1), last, by, user_id=user, cursor=cursor, limit=2
        )
        assert len(page.items) <= 2
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [one.group for one in found] == sorted({one.group for one in found})
    assert page.total.turns == sum(one.turns for one in found)
    assert page.total.usage == sum((one.usage for one in found), Usage())
    return {one.group: (one.turns, one.usage) for one in found}


async def test_all_that_is_known_of_a_turns_usage_is_kept(store: Store, clock: Clock) -> None:
    turn = await spent(store, "c1", WHOLE)
    (row,) = (await store.list_usage("acme", today(clock))).items
    assert (row.turn_id, row.purpose, row.usage) == (turn, "turn", WHOLE)


async def test_each_model_that_answered_in_a_turn_has_its_own_share(store: Store, clock: Clock) -> None:
    first = Usage(input_tokens=400, output_tokens=100, cached_input_tokens=400, cost_microusd=321)
    await spent(store, "c1", WHOLE, model_id="m2", earlier=(ModelUsage(model_id="m1", usage=first),))
    rows = (await store.list_usage("acme", today(clock))).items
    assert {(row.model_id, row.purpose): row.usage for row in rows} == {
        ("m1", "steps"): first,
        ("m2", "turn"): WHOLE - first,
    }
    assert await summed(store, "model", clock) == {"m1": (0, first), "m2": (1, WHOLE - first)}


async def test_a_title_is_counted_beside_its_turn_and_once_however_often_it_is_told(store: Store, clock: Clock) -> None:
    await store.ensure_conversation(conversation_key("c1"))
    for _ in range(2):
        await store.add_usage([a_title(clock)])
        await store.update_conversation(conversation_key("c1"), title="Plans", if_untitled=True, usage=a_title(clock))
    (row,) = (await store.list_usage("acme", today(clock))).items
    assert row == a_title(clock)
    assert await summed(store, "day", clock) == {today(clock).isoformat(): (0, WHOLE)}
    await store.add_usage([a_title(clock, model_id="large"), a_title(clock, model_id=None)])
    assert len((await store.list_usage("acme", today(clock))).items) == 3
    clock.advance(1)  # it was made again, by another owner
    await store.add_usage([a_title(clock)])
    assert await summed(store, "model", clock) == {"": (0, WHOLE), "large": (0, WHOLE), "small": (0, WHOLE + WHOLE)}


async def test_a_title_that_came_with_a_change_is_counted(store: Store, clock: Clock) -> None:
    key = conversation_key("c1")
    await store.ensure_conversation(key)
    await store.update_conversation(key, title="Plans", usage=a_title(clock, model_id=None))
    assert (await store.get_conversation(key)).title == "Plans"
    assert await summed(store, "model", clock) == {"": (0, WHOLE)}
    with pytest.raises(NotFound):
        await store.update_conversation(conversation_key("gone"), title="x", usage=a_title(clock, model_id=None))


# Sums


async def test_what_was_consumed_is_added_up_by_day_user_model_and_conversation(store: Store, clock: Clock) -> None:
    one, two, four = (Usage(input_tokens=count, output_tokens=10, cost_microusd=7) for count in (1, 2, 4))
    clock.now = datetime(2026, 3, 4, 23, 59, tzinfo=UTC).timestamp()
    await spent(store, "c1", one)
    await spent(store, "c2", two, principal=OTHERS[0], model_id="m2")
    clock.advance(120)  # past midnight
    await spent(store, "c1", two, model_id="m2")
    await spent(store, "c3", four)
    await spent(store, "c1", four, principal=DORA)
    assert await summed(store, "day", clock, days=2) == {"2026-03-04": (2, one + two), "2026-03-05": (2, two + four)}
    assert await summed(store, "user", clock, days=2) == {"anna": (3, one + two + four), "bert": (1, two)}
    assert await summed(store, "model", clock, days=2) == {"m1": (2, one + four), "m2": (2, two + two)}
    assert await summed(store, "user", clock) == {"anna": (2, two + four)}
    assert await summed(store, "conversation", clock, days=2, user="anna") == {"c1": (2, one + two), "c3": (1, four)}
    assert await summed(store, "model", clock, days=2, user="anna") == {"m1": (2, one + four), "m2": (1, two)}
    assert await summed(store, "day", clock, days=2, user="bert") == {"2026-03-04": (1, two)}
    assert await summed(store, "day", clock, days=2, tenant="globex") == {"2026-03-05": (1, four)}
    assert await summed(store, "day", clock, days=2, tenant="globex", user="anna") == {}


async def test_days_that_are_over_add_up_the_same_again_and_take_in_what_comes_late(store: Store, clock: Clock) -> None:
    await spent(store, "c1", WHOLE)
    late = replace(a_title(clock), usage=Usage(input_tokens=5))
    clock.advance(3 * 86_400)
    for _ in range(2):  # what the first look may have kept, the second finds
        assert await summed(store, "model", clock, days=7) == {"m1": (1, WHOLE)}
    await store.add_usage([late])
    for _ in range(2):
        assert await summed(store, "model", clock, days=7) == {"m1": (1, WHOLE), "small": (0, late.usage)}
    await spent(store, "c1", WHOLE)
    assert (await summed(store, "user", clock, days=7))["anna"] == (2, WHOLE + WHOLE + late.usage)


async def test_sums_of_too_much_or_by_another_cursor_are_refused(store: Store, clock: Clock) -> None:
    for user in (ANNA, OTHERS[0]):
        await spent(store, "c1", WHOLE, principal=user)
    day = today(clock)
    await store.sum_usage("acme", day - timedelta(days=MAX_USAGE_DAYS - 1), day, "day")
    for first in (day - timedelta(days=MAX_USAGE_DAYS), day + timedelta(days=1)):
        with pytest.raises(InvalidInput):
            await store.sum_usage("acme", first, day, "day")
    with pytest.raises(InvalidInput):
        await store.sum_usage("acme", day, day, "conversation")
    for end in (date.min, date.max):
        assert (await store.sum_usage("acme", end, end, "conversation", user_id="anna")).items == ()
        assert (await store.list_usage("acme", end)).items == ()
    cursor = (await store.sum_usage("acme", day, day, "user", limit=1)).next_cursor
    assert cursor is not None
    for by, given in (("model", cursor), ("user", "nonsense")):
        with pytest.raises(InvalidInput):
            await store.sum_usage("acme", day, day, by, cursor=given)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        await store.sum_usage("acme", day, day, "user", limit=0)
