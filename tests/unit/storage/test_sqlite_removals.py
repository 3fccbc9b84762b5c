"""Removing in pieces: what is hidden is gone at once, and its rows follow."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from serve_app.storage.sqlite import SqliteStore, removals
from tests.contract.store_inputs import (
    ANNA,
    OTHERS,
    Clock,
    completed,
    conversation_key,
    deltas,
    finish,
    response,
    running,
    share,
    step,
)

C1 = conversation_key("c1")
TABLES = ("conversation", "session_prompt", "message", "turn", "turn_input", "turn_step", "event")


def rows(connection: apsw.Connection) -> dict[str, int]:
    counted = {}
    for table in TABLES:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0]  # noqa: S608 - our own names
        counted[table] = int(str(count))
    return counted


async def long_conversation(store: SqliteStore) -> None:
    for _ in range(3):
        key = await running(store, C1)
        await store.append([share(key, *deltas(key, 2, 30), step=step())])
        await store.append([share(key, response(key, 31), finish=finish(key))])


@pytest.mark.parametrize("piece", [1, 7, 5_000])
async def test_a_deleted_conversation_leaves_no_row_whatever_the_size_of_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(removals, "PIECE_ROWS", piece)
    store = await SqliteStore.open(tmp_path)
    kept = conversation_key("c1", OTHERS[0])
    await completed(store, kept)
    before = await store._readers.run(rows)
    await long_conversation(store)
    await store.delete_conversation(C1)
    assert await store._readers.run(rows) == before
    assert len((await store.list_messages(kept)).items) == 2
    await store.close()


@pytest.mark.parametrize("piece", [1, 20, 5_000])
async def test_pruning_in_pieces_takes_whole_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(removals, "PIECE_ROWS", piece)
    clock = Clock()
    store = await SqliteStore.open(tmp_path, clock=clock)
    await long_conversation(store)
    clock.advance(10)
    assert await store.prune_events(older_than_s=5) == 3
    assert (await store._readers.run(rows))["event"] == 0
    await store.close()


async def test_what_a_crash_left_of_a_removal_is_cleared_by_the_next_upkeep(tmp_path: Path) -> None:
    clock = Clock()
    store = await SqliteStore.open(tmp_path, clock=clock)
    await long_conversation(store)
    await running(store, C1)
    await store._writer.run(removals.hide, C1)  # and then the process died
    clock.advance(30)
    assert await store.find_abandoned_turns() == []
    assert (await store.list_conversations(ANNA)).items == ()
    await store.ensure_conversation(C1)
    assert (await store.list_messages(C1)).items == ()
    await store.prune_events(older_than_s=60)
    left = await store._readers.run(rows)
    assert left == dict.fromkeys(TABLES, 0) | {"conversation": 1}
    await store.close()


async def test_a_user_with_more_conversations_than_a_chunk_is_archived_and_deleted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "_CHUNK", 3)
    monkeypatch.setattr("serve_app.storage.sqlite.conversations._CHUNK", 3)
    store = await SqliteStore.open(tmp_path)
    for number in range(10):
        await store.ensure_conversation(conversation_key(f"c{number}"))
    assert await store.archive_all(ANNA) == 10
    assert await store.delete_all(ANNA) == 10
    assert (await store._readers.run(rows))["conversation"] == 0
    await store.close()
