"""What was acknowledged is there again, however the process ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import apsw
import pytest

from serve_app.domain.ids import TurnKey
from serve_app.errors import LeaseLost
from serve_app.storage.rules import RETURN_GRACE_S
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import (
    ANNA,
    PROMPT,
    SECOND,
    Clock,
    accepted,
    claimed,
    completed,
    conversation_key,
    delta,
    only,
    running,
    share,
    step,
)
from tests.unit.storage.appender import TURNS

ROOT = Path(__file__).resolve().parents[3]
C1 = conversation_key("c1")


async def test_a_reopened_store_has_everything(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    ended = await completed(store, C1)
    open_ = await running(store, C1, "And then?")
    await store.append([share(open_, delta(open_, 2), step=step(0, last_seq=2), session_prompt=PROMPT)])
    await store.update_conversation(C1, title="Plans")
    await store.set_reaction(C1, ended.assistant_message_id, "up")

    async def everything(store: SqliteStore) -> list[object]:
        return [
            await store.get_conversation(C1),
            await store.list_conversations(ANNA),
            await store.list_messages(C1),
            await store.read_events(ended),
            await store.read_events(open_),
        ]

    before = await everything(store)
    await store.close()
    again = await SqliteStore.open(tmp_path)
    assert await everything(again) == before
    assert (await claimed(again, open_)).turn.epoch == 2
    await again.close()


async def test_leases_that_ran_out_while_the_store_was_away_hold_a_little_longer(tmp_path: Path) -> None:
    clock = Clock()
    store = await SqliteStore.open(tmp_path, clock=clock)
    held, unclaimed = await running(store, C1), await accepted(store, conversation_key("c2"))
    await store.close()
    clock.advance(60)
    store = await SqliteStore.open(tmp_path, clock=clock)
    assert await store.find_abandoned_turns() == [unclaimed]
    clock.advance(RETURN_GRACE_S - 0.1)
    with pytest.raises(LeaseLost):
        await claimed(store, held, SECOND)
    assert only(await store.append([share(held, lease_s=0.1)])).status == "ok"
    clock.advance(0.1)
    assert held in await store.find_abandoned_turns()
    await store.close()


async def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.storage.appender", str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    acknowledged: dict[str, int] = {}
    async with asyncio.timeout(60):
        for _ in range(400):
            take(acknowledged, await process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        while line := await process.stdout.readline():
            take(acknowledged, line)
        assert await process.wait() == -signal.SIGKILL
    assert len(acknowledged) == TURNS

    store = await SqliteStore.open(tmp_path)  # its lock went with the process
    for turn_id, last_seq in acknowledged.items():
        key = TurnKey.of(ANNA, turn_id)
        page = await store.read_events(key, limit=2000)
        assert page.turn.last_seq >= last_seq
        seqs = [record.seq for record in page.records]
        assert seqs == list(range(1, len(seqs) + 1))
        assert all(record == delta(key, record.seq, f"w{record.seq}") for record in page.records[1:])
        last = page.turn.last_seq
        assert only(await store.append([share(key, delta(key, last + 1))])).last_seq == last + 1
    await store.close()
    connection = apsw.Connection(str(tmp_path / "parley.db"))
    assert connection.pragma("integrity_check") == "ok"
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def test_commits_go_to_the_write_ahead_log_and_are_synced(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)

    def pragmas(connection: apsw.Connection, _now: float) -> tuple[object, ...]:
        return tuple(connection.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys"))

    assert await store._writer.run(pragmas) == ("wal", 2, 1)
    await store.close()


def take(acknowledged: dict[str, int], line: bytes) -> None:
    if line.endswith(b"\n"):
        turn_id, last_seq = line.split()
        acknowledged[turn_id.decode()] = int(last_seq)
