"""A disk that fills up: refused in a sentence that says what to do, nothing acknowledged lost, and on it goes with room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from serve_app.domain.ids import TurnKey
from serve_app.errors import ConfigError, Overloaded
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import (
    claimed,
    conversation_key,
    delta,
    finish,
    new_turn,
    only,
    queued,
    response,
    running,
    share,
)
from tests.simulators.storage.full_disk import FullDisk
from tests.simulators.storage.ledger import Acknowledged, Ledger, answer_of, check_all

C1, C2 = conversation_key("c1"), conversation_key("c2")
MOST = 500
"""Writes after which a disk that should be full would have refused."""


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    made = FullDisk()
    yield made
    made.restore()


@pytest.fixture
async def store(disk: FullDisk, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path)
    yield opened
    await opened.close()


async def accept_until_full(store: SqliteStore, ledger: Ledger) -> None:
    """Each in a conversation of its own."""
    for number in range(MOST):
        conversation = conversation_key(f"full{number}")
        await store.ensure_conversation(conversation)
        content = "long " * 200
        turn = (await store.accept_turn(new_turn(conversation, content))).turn
        ledger.add(Acknowledged(turn_id=turn.key.turn_id, content=content))
    pytest.fail("the disk never filled up")


async def append_until_full(store: SqliteStore, key: TurnKey, first: int, ledger: Ledger) -> None:
    for seq in range(first, first + MOST):
        reply = only(await store.append([share(key, delta(key, seq, f"w{seq}"))]))
        ledger.add(Acknowledged(turn_id=key.turn_id, last_seq=reply.last_seq))
    pytest.fail("the disk never filled up")


def check_refusal(refused: Overloaded) -> None:
    assert refused.retryable
    assert "disk" in refused.message
    assert "free some space" in refused.message


# The last page of a group may find room for a part of itself, or the very first none.
@pytest.mark.parametrize("room_bytes", [0, 1, 5_000, 40_001, 200_000])
async def test_a_full_disk_refuses_loses_nothing_acknowledged_and_needs_no_restart(
    disk: FullDisk, store: SqliteStore, tmp_path: Path, room_bytes: int
) -> None:
    ledger = Ledger()
    key = await running(store, C1)
    ledger.add(Acknowledged(turn_id=key.turn_id, content="Hello"))
    disk.room_bytes = room_bytes
    with pytest.raises(Overloaded) as refused:
        await append_until_full(store, key, 2, ledger)
    check_refusal(refused.value)
    with pytest.raises(Overloaded) as refused:
        await accept_until_full(store, ledger)
    check_refusal(refused.value)
    assert await ledger.missing(store) == []  # what is there can be read meanwhile

    disk.room_bytes = None
    await store.check()
    last_seq = (await store.get_turn(key)).last_seq
    answer = answer_of(key)
    last = share(key, response(key, last_seq + 1, answer), finish=finish(key, answer))
    assert only(await store.append([last])).status == "ok"
    ledger.add(Acknowledged(turn_id=key.turn_id, last_seq=last_seq + 1, ended=True))
    disk.room_bytes = 20_000
    with pytest.raises(Overloaded):
        await accept_until_full(store, ledger)
    disk.room_bytes = None
    await store.close()
    assert await check_all(tmp_path, ledger) == []


async def test_what_a_full_disk_refused_can_be_sent_again_and_is_there_once(disk: FullDisk, store: SqliteStore) -> None:
    key = await running(store, C1)
    await store.ensure_conversation(C2)
    disk.room_bytes = 0
    new = new_turn(C2, client_turn_id="k1")
    append = share(key, delta(key, 2), delta(key, 3))
    for _ in range(3):
        with pytest.raises(Overloaded):
            await store.accept_turn(new)
        with pytest.raises(Overloaded):
            await store.append([append])
    with pytest.raises(Overloaded) as refused:
        await store.check()
    check_refusal(refused.value)
    assert (await store.get_conversation(C2)).message_count == 0
    assert (await store.get_turn(key)).last_seq == 1
    disk.room_bytes = None
    assert (await store.accept_turn(new)).created
    assert only(await store.append([append])).last_seq == 3
    assert not (await store.accept_turn(new)).created
    assert len((await store.read_events(key)).records) == 3


async def test_a_finish_that_found_no_room_lets_nobody_through_until_it_is_stored(
    disk: FullDisk, store: SqliteStore
) -> None:
    key = await running(store, C1)
    waiting = await queued(store, C1)
    disk.room_bytes = 0
    last = share(key, response(key, 2), finish=finish(key))
    with pytest.raises(Overloaded):
        await store.append([last])
    assert (await store.get_turn(waiting)).waits
    assert not (await store.get_turn(key)).ended
    disk.room_bytes = None
    assert only(await store.append([last])).next_turn == waiting
    await claimed(store, waiting)


async def test_a_checkpoint_that_finds_no_room_does_not_fail_what_its_log_has_taken(
    disk: FullDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.storage.sqlite.connection._CHECKPOINT_PAGES", 1_000_000)
    store = await SqliteStore.open(tmp_path)
    ledger = Ledger()
    key = await running(store, C1)
    ledger.add(Acknowledged(turn_id=key.turn_id, content="Hello"))
    for seq in range(2, 60):
        await store.append([share(key, delta(key, seq, f"w{seq}"))])
        ledger.add(Acknowledged(turn_id=key.turn_id, last_seq=seq))
    await store.accept_turn(new_turn(C1, "x" * 200_000), on_busy="queue")  # pages the file does not have yet

    def checkpoint_at_next_commit(connection: apsw.Connection, _now: float) -> None:
        connection.wal_autocheckpoint(1)

    disk.room_bytes = 40_000
    await store._writer.run(checkpoint_at_next_commit)
    reply = only(await store.append([share(key, delta(key, 60, "w60"))]))
    ledger.add(Acknowledged(turn_id=key.turn_id, last_seq=reply.last_seq))
    assert disk.refused > 0
    disk.room_bytes = None
    await store.close()
    assert await check_all(tmp_path, ledger) == []


async def test_a_store_that_finds_no_room_to_open_says_so_and_opens_when_there_is(
    disk: FullDisk, tmp_path: Path
) -> None:
    disk.room_bytes = 0
    with pytest.raises(ConfigError, match=r"PARLEY_DATA_DIR: .* free some space"):
        await SqliteStore.open(tmp_path)
    disk.room_bytes = None
    store = await SqliteStore.open(tmp_path)
    key = await running(store, C1)
    await store.close()
    disk.room_bytes = 0
    with pytest.raises(ConfigError, match=r"PARLEY_DATA_DIR: .* free some space"):
        await SqliteStore.open(tmp_path)
    disk.room_bytes = 100  # enough for the index of its log, which is a hole but for a few bytes
    store = await SqliteStore.open(tmp_path)
    assert (await store.get_turn(key)).last_seq == 1
    with pytest.raises(Overloaded) as refused:
        await store.append([share(key, delta(key, 2))])
    check_refusal(refused.value)
    disk.room_bytes = None
    assert only(await store.append([share(key, delta(key, 2))])).last_seq == 2
    await store.close()
