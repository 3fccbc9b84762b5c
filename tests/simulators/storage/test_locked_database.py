"""Another process locks the database file past the folder's lock: writes wait, or are refused for the moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serve_app.errors import Overloaded
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import conversation_key, delta, new_turn, only, running, share
from tests.simulators.storage.ledger import check_file

ROOT = Path(__file__).resolve().parents[3]
BOUND_S = 60
C1, C2 = conversation_key("c1"), conversation_key("c2")


@asynccontextmanager
async def locked(folder: Path, lock: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """While another process holds the lock; whoever lets go earlier calls ``let_go``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.simulators.storage.holder", str(folder / "parley.db"), lock),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(BOUND_S):
            assert await process.stdout.readline() == b"held\n"
        yield process
        await let_go(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def let_go(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        assert process.stdin
        process.stdin.write(b"\n")
        async with asyncio.timeout(BOUND_S):
            assert await process.wait() == 0


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_write_waits_for_a_lock_that_is_let_go_in_time_while_reads_go_on(tmp_path: Path, lock: str) -> None:
    store = await SqliteStore.open(tmp_path)
    key = await running(store, C1)
    await store.ensure_conversation(C2)
    # As patient as the machine may be slow: this one is about the waiting, the next about its end.
    store._writer._connection.set_busy_timeout(BOUND_S * 1000)
    async with locked(tmp_path, lock) as process:
        writes = [
            asyncio.ensure_future(store.append([share(key, delta(key, 2))])),
            asyncio.ensure_future(store.accept_turn(new_turn(C2))),
        ]
        assert (await store.get_turn(key)).last_seq == 1
        done, _ = await asyncio.wait(writes, timeout=0.2)
        assert not done
        assert (await store.get_conversation(C2)).message_count == 0
        await let_go(process)
        async with asyncio.timeout(BOUND_S):
            await asyncio.gather(*writes)
    assert (await store.get_turn(key)).last_seq == 2
    assert (await store.get_conversation(C2)).message_count == 1
    await store.close()
    check_file(tmp_path)


async def test_a_lock_held_for_too_long_refuses_writes_for_the_moment_and_stores_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.storage.sqlite.connection._BUSY_MS", 50)
    store = await SqliteStore.open(tmp_path)
    key = await running(store, C1)
    await store.ensure_conversation(C2)
    new = new_turn(C2, client_turn_id="k1")
    append = share(key, delta(key, 2))
    async with locked(tmp_path, "EXCLUSIVE"):
        for call in (lambda: store.append([append]), lambda: store.accept_turn(new), store.check):
            with pytest.raises(Overloaded, match="try again") as refused:
                await call()
            assert refused.value.retryable
            assert refused.value.retry_after_s
        assert (await store.get_turn(key)).last_seq == 1
        assert (await store.get_conversation(C2)).message_count == 0
    await store.check()
    assert only(await store.append([append])).last_seq == 2
    assert (await store.accept_turn(new)).created
    await store.close()
    check_file(tmp_path)


async def test_a_holder_that_is_killed_holds_no_more(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    key = await running(store, C1)
    store._writer._connection.set_busy_timeout(BOUND_S * 1000)
    async with locked(tmp_path, "EXCLUSIVE") as process:
        write = asyncio.ensure_future(store.append([share(key, delta(key, 2))]))
        done, _ = await asyncio.wait([write], timeout=0.1)
        assert not done
        process.kill()
        await process.wait()
        async with asyncio.timeout(BOUND_S):
            assert only(await write).last_seq == 2
    await store.close()
    check_file(tmp_path)
