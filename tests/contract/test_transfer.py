"""What one store has, another shows the same after a copy, and goes on from there. Held between every two adapters."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import Conversation
from serve_app.errors import InvalidInput, NotFound
from serve_app.storage.memory.transfer import MemoryTransfer
from serve_app.storage.port import Store
from serve_app.storage.sqlite.transfer import SqliteTransfer
from serve_app.storage.transfer import StoreCounts, Transfer
from tests.contract.store_inputs import (
    ANNA,
    OTHERS,
    PROMPT,
    SECOND,
    Clock,
    accepted,
    calling,
    claimed,
    completed,
    conversation_key,
    delta,
    deltas,
    ended,
    new_turn,
    only,
    queued,
    running,
    share,
    step,
)

C1, C2, C3 = conversation_key("c1"), conversation_key("c2"), conversation_key("c1", OTHERS[0])


class CopyableStore(Store, Transfer, Protocol):
    """A store as requests use it, and as it is copied."""


ADAPTERS = ("memory", "sqlite")


async def opened(name: str, folder: Path, clock: Clock) -> CopyableStore:
    return MemoryTransfer(clock=clock) if name == "memory" else await SqliteTransfer.open(folder, clock=clock)


@pytest.fixture(params=list(itertools.product(ADAPTERS, ADAPTERS)), ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[tuple[CopyableStore, CopyableStore]]:
    pair = [await opened(name, tmp_path / side, clock) for name, side in zip(request.param, ("a", "b"), strict=True)]
    yield pair[0], pair[1]
    for store in pair:
        await store.close()


async def fill(store: CopyableStore, clock: Clock) -> None:
    """Something of everything: edits, answers anew, reactions, tools, logs that are gone, turns running and waiting."""
    first = await completed(store, C1, "One")
    clock.advance(1)
    await store.set_reaction(C1, first.assistant_message_id, "up")
    again = await store.accept_turn(new_turn(C1, "One", replaces=first.assistant_message_id, client_turn_id="k1"))
    await ended(store, again.turn.key, "Another answer")
    edit = await store.accept_turn(new_turn(C1, "Two", replaces=first.user_message_id, client_message_id="m1"))
    await ended(store, edit.turn.key)
    await store.prune_events(older_than_s=0)
    clock.advance(1)
    await store.update_conversation(C1, title="Numbers", session_prompt=PROMPT)

    run = await running(store, C2)
    called = share(run, *deltas(run, 2, 3), step=calling(0, 3), attempt=2)
    assert only(await store.append([replace(called, ahead=7)])).status == "ok"
    await queued(store, C2)
    await queued(store, C2, "And then?")
    await store.request_cancel(run)

    await completed(store, C3, "Theirs")
    await store.update_conversation(C3, archived=True)
    through = await accepted(store, C3)
    waits = await queued(store, C3)
    clock.advance(3)
    await ended(store, through)
    assert not (await store.get_turn(waits)).waits
    gone = conversation_key("gone")
    await completed(store, gone)
    await store.delete_conversation(gone)
    await store.save_record("acme", "user", "anna", b'{"user_id":"anna"}')
    await store.save_record("", "tenant", "acme", b"{}")


async def copy_all(source: Transfer, target: Transfer) -> None:
    cursor: str | None = None
    while True:
        keys = await source.scan_conversations(cursor=cursor, limit=2)
        for key in keys.items:
            await target.import_conversation(await source.export_conversation(key))
        if (cursor := keys.next_cursor) is None:
            break
    while True:
        usage = await source.scan_usage(cursor=cursor, limit=2)
        await target.import_usage(usage.items)
        if (cursor := usage.next_cursor) is None:
            break
    while True:
        records = await source.scan_records(cursor=cursor, limit=1)
        await target.import_records(records.items)
        if (cursor := records.next_cursor) is None:
            break


async def all_shown(store: CopyableStore) -> object:
    """All that readers can see, without what each store makes of its own."""

    def plain(conversation: Conversation) -> Conversation:
        return replace(conversation, etag="")

    seen: list[object] = []
    for principal in (ANNA, *OTHERS):
        for archived in (False, True):
            page = await store.list_conversations(principal, archived=archived)
            for listed in page.items:
                seen.append(plain(listed))
                seen.append(plain(await store.get_conversation(listed.key)))
                messages = await store.list_messages(listed.key, replaced=True)
                seen.append(messages.items)
                for turn_id in {message.turn_id: None for message in messages.items}:
                    key = new_turn(listed.key).key
                    turn = await store.get_turn(replace(key, turn_id=turn_id))
                    seen.append(turn)
                    try:
                        seen.append((await store.read_events(turn.key)).records)
                    except Exception as error:
                        seen.append(str(error))
    seen.append(sorted(key.turn_id for key in await store.find_abandoned_turns()))
    for tenant, kind in (("acme", "user"), ("", "tenant")):
        listed_records = await store.list_records(tenant, kind)
        seen.append([replace(record, etag="") for record in listed_records.items])
    return seen


async def test_a_copy_shows_the_same(stores: tuple[CopyableStore, CopyableStore], clock: Clock) -> None:
    source, target = stores
    await fill(source, clock)
    await copy_all(source, target)
    assert await all_shown(target) == await all_shown(source)
    counts = await source.count_all()
    assert await target.count_all() == counts
    assert counts == StoreCounts(conversations=3, messages=13, turns=9, usage=6, records=2)


async def test_a_copy_made_twice_changes_nothing(stores: tuple[CopyableStore, CopyableStore], clock: Clock) -> None:
    source, target = stores
    await fill(source, clock)
    await copy_all(source, target)
    etags = [(await target.get_conversation(key)).etag for key in (C1, C2, C3)]
    await copy_all(source, target)
    assert [(await target.get_conversation(key)).etag for key in (C1, C2, C3)] == etags
    assert await target.count_all() == await source.count_all()


async def test_a_copy_replaces_what_is_there(stores: tuple[CopyableStore, CopyableStore], clock: Clock) -> None:
    source, target = stores
    await fill(source, clock)
    await completed(target, C1, "Something else")
    await target.save_record("acme", "user", "anna", b'{"user_id":"other"}')
    before = (await target.get_conversation(C1)).etag
    await copy_all(source, target)
    assert await all_shown(target) == await all_shown(source)
    assert (await target.get_conversation(C1)).etag != before


async def test_a_copied_conversation_goes_on(stores: tuple[CopyableStore, CopyableStore], clock: Clock) -> None:
    source, target = stores
    await fill(source, clock)
    await copy_all(source, target)
    await completed(target, C1, "Three", "Four")
    shown = (await target.list_messages(C1)).items
    assert [message.text for message in shown] == ["Two", "Done.", "Three", "Four"]
    repeated = await target.accept_turn(new_turn(C1, "One", client_turn_id="k1"))
    assert not repeated.created
    assert (await target.find_message(C1, "m1")).text == "Two"
    # A running turn is taken over with the next epoch, behind all that its owner may have shown.
    clock.advance(60)
    (run,) = [key for key in await target.find_abandoned_turns() if key.conversation == C2]
    claim = await claimed(target, run, SECOND)
    assert (claim.turn.epoch, claim.shown_seq, claim.turn.cancel_requested) == (2, 10, True)
    late = only(await target.append([share(run, delta(run, 4), epoch=1)]))
    assert late.status == "lost"
    assert only(await target.append([share(run, delta(run, 4), epoch=2, step=step(0, 4))])).status == "ok"
    # A conversation made afterwards comes first among equals.
    newer = conversation_key("newer")
    await target.ensure_conversation(newer)
    await target.ensure_conversation(conversation_key("newest"))
    listed = [one.key.conversation_id for one in (await target.list_conversations(ANNA)).items]
    assert listed.index("newest") < listed.index("newer")


async def test_what_cannot_be_copied_is_refused(stores: tuple[CopyableStore, CopyableStore]) -> None:
    source, _ = stores
    with pytest.raises(NotFound):
        await source.export_conversation(C1)
    for cursor in ("nonsense", "-1", "²"):
        with pytest.raises(InvalidInput):
            await source.scan_conversations(cursor=cursor)
