"""What a tenant's turns consumed on a day, as every adapter lists it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.usage import Usage
from serve_app.errors import InvalidInput
from serve_app.storage.port import Store
from tests.contract.store_inputs import Clock, completed, conversation_key, running

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
