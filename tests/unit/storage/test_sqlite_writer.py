"""The writer: groups, savepoints, bounds and its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from serve_app.errors import Conflict, Internal, Overloaded, ParleyError
from serve_app.settings import StoreSettings
from serve_app.storage.sqlite import SqliteStore
from serve_app.storage.sqlite.connection import as_parley_error, open_writer
from serve_app.storage.sqlite.reader import Readers
from serve_app.storage.sqlite.writer import Writer
from tests.contract.store_inputs import conversation_key

BOUND_S = 30


class Gate:
    """An operation that holds the writer until it is opened, so that a test decides what gathers behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: apsw.Connection, _now: float = 0) -> None:
        self.entered.set()
        assert self.opened.wait(BOUND_S)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, BOUND_S)


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    connection = open_writer(tmp_path / "w.db")
    connection.execute("CREATE TABLE number (n INTEGER PRIMARY KEY CHECK (n < 1000)) STRICT")
    connection.execute("CREATE TABLE commits (n INTEGER)")
    opened = Writer(connection, clock=lambda: 7.0, max_batch=8, max_queue=20)
    yield opened
    await opened.close()


def insert(connection: apsw.Connection, now: float, number: int) -> int:
    connection.execute("INSERT INTO number VALUES (?)", (number,))
    return number


def insert_and_refuse(connection: apsw.Connection, now: float, number: int) -> None:
    insert(connection, now, number)
    raise Conflict("Refused after writing.")


def insert_and_break(connection: apsw.Connection, now: float, number: int) -> None:
    insert(connection, now, number)
    raise ZeroDivisionError


def numbers(connection: apsw.Connection, _now: float = 0) -> list[int]:
    return [int(str(n)) for (n,) in connection.execute("SELECT n FROM number ORDER BY n")]


async def behind(writer: Writer, *operations: asyncio.Task[object]) -> None:
    """Waits until the operations stand in the queue."""
    async with asyncio.timeout(BOUND_S):
        while writer.queued < len(operations):  # noqa: ASYNC110 - a queue of threads has no event of asyncio's
            await asyncio.sleep(0)


async def test_a_failing_operation_takes_back_itself_and_no_other_of_its_group(writer: Writer) -> None:
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(writer.run(insert, 1)),
        asyncio.create_task(writer.run(insert_and_refuse, 2)),
        asyncio.create_task(writer.run(insert, 1000)),
        asyncio.create_task(writer.run(insert, 1)),
        asyncio.create_task(writer.run(insert_and_break, 3)),
        asyncio.create_task(writer.run(insert, 4)),
    ]
    await behind(writer, *tasks)
    gate.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await held
    assert [type(result) for result in results] == [int, Conflict, Internal, Internal, Internal, int]
    assert isinstance(results[4], ParleyError)
    assert isinstance(results[4].__cause__, ZeroDivisionError)
    assert await writer.run(numbers) == [1, 4]


async def test_what_gathers_is_committed_together_up_to_the_largest_batch(writer: Writer) -> None:
    commits = 0

    def count(_connection: apsw.Connection) -> bool:
        nonlocal commits
        commits += 1
        return False

    def hook(connection: apsw.Connection, _now: float) -> None:
        connection.set_commit_hook(lambda: count(connection))

    await writer.run(hook)
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(writer.run(insert, n)) for n in range(16)]
    await behind(writer, *tasks)
    before = commits
    gate.opened.set()
    assert await asyncio.gather(*tasks) == list(range(16))
    await held
    assert commits - before == 3  # the gate's own, and sixteen in two groups of eight


async def test_a_full_queue_refuses_as_overloaded_and_recovers(writer: Writer) -> None:
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    waiting: list[asyncio.Task[object]] = [asyncio.create_task(writer.run(insert, n)) for n in range(20)]
    await behind(writer, *waiting)
    with pytest.raises(Overloaded) as refused:
        await writer.run(insert, 99)
    assert refused.value.retryable
    assert refused.value.retry_after_s
    gate.opened.set()
    await asyncio.gather(held, *waiting)
    assert await writer.run(insert, 99) == 99


async def test_an_operation_whose_caller_has_gone_is_left_out(writer: Writer) -> None:
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    gone, kept = asyncio.create_task(writer.run(insert, 1)), asyncio.create_task(writer.run(insert, 2))
    await behind(writer, gone, kept)
    gone.cancel()
    await asyncio.wait([gone])
    gate.opened.set()
    await asyncio.gather(held, kept)
    assert await writer.run(numbers) == [2]


async def test_a_commit_that_fails_fails_its_whole_group_and_the_next_one_works(writer: Writer) -> None:
    def fail_next_commit(connection: apsw.Connection, _now: float) -> None:
        def fail() -> bool:
            connection.set_commit_hook(None)
            return True

        insert(connection, 0, 1)
        connection.set_commit_hook(fail)

    with pytest.raises(Internal):
        await writer.run(fail_next_commit)
    assert await writer.run(numbers) == []
    assert await writer.run(insert, 2) == 2


async def test_closing_writes_what_was_queued(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "w.db")
    connection.execute("CREATE TABLE number (n INTEGER)")
    writer = Writer(connection, clock=lambda: 7.0, max_batch=2, max_queue=20)
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(writer.run(insert, n)) for n in range(5)]
    await behind(writer, *tasks)
    closing = asyncio.create_task(writer.close())
    gate.opened.set()
    async with asyncio.timeout(BOUND_S):
        assert await asyncio.gather(*tasks) == list(range(5))
        await asyncio.gather(held, closing)
    with pytest.raises(Overloaded):
        await writer.run(insert, 6)
    again = apsw.Connection(str(tmp_path / "w.db"))
    assert numbers(again) == list(range(5))
    again.close()


async def test_too_many_waiting_reads_are_refused_as_overloaded(tmp_path: Path) -> None:
    open_writer(tmp_path / "r.db").close()
    readers = Readers(tmp_path / "r.db", max_queue=2, threads=1)
    gate = Gate()
    held = asyncio.create_task(readers.run(gate))
    await gate.wait_entered()
    waiting = asyncio.create_task(readers.run(lambda _: 1))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await readers.run(lambda _: 2)
    gate.opened.set()
    await held
    assert await waiting == 1
    assert await readers.run(lambda _: 3) == 3
    await readers.close()


async def test_a_reader_cannot_write_and_its_failure_leaves_it_usable(tmp_path: Path) -> None:
    open_writer(tmp_path / "r.db").close()
    readers = Readers(tmp_path / "r.db", max_queue=2, threads=1)
    with pytest.raises(Internal):
        await readers.run(lambda connection: connection.execute("DELETE FROM turn"))
    assert await readers.run(lambda connection: connection.in_transaction)
    await readers.close()


@pytest.mark.parametrize(
    ("failure", "says", "retryable"),
    [
        (apsw.FullError, "free some space", True),
        (apsw.BusyError, "try again", True),
        (apsw.IOError, "check its disk and permissions", True),
        (apsw.ReadOnlyError, "check its disk and permissions", True),
        (apsw.CorruptError, "put back a copy", False),
        (apsw.SQLError, "the log says why", False),
    ],
)
def test_a_failure_of_sqlite_says_what_to_do_and_whether_to_try_again(
    failure: type[apsw.Error], says: str, retryable: bool
) -> None:
    told = as_parley_error(failure("as SQLite words it"))
    assert says in told.message
    assert told.retryable is retryable
    assert isinstance(told.__cause__, failure)


async def test_a_full_disk_is_overloaded_and_the_store_works_again_when_there_is_space(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path, StoreSettings(max_queue=5))

    def bound_pages(connection: apsw.Connection, _now: float, pages: int) -> None:
        connection.pragma("max_page_count", pages)

    await store._writer.run(bound_pages, 1)  # becomes the present size: nothing can grow
    with pytest.raises(Overloaded, match="disk"):
        for number in range(500):
            await store.ensure_conversation(conversation_key(f"{'long' * 10}{number}"))
    await store._writer.run(bound_pages, 1_000_000)
    await store.check()
    await store.ensure_conversation(conversation_key("after"))
    await store.close()


async def test_time_at_work_is_counted_while_it_works_and_time_in_wait_is_not(writer: Writer) -> None:
    assert writer.worked_s == 0
    gate = Gate()
    held = asyncio.create_task(writer.run(gate))
    await gate.wait_entered()
    before = writer.worked_s
    begun = time.monotonic()
    async with asyncio.timeout(BOUND_S):
        while writer.worked_s < before + 0.05:  # noqa: ASYNC110 - it grows by itself
            await asyncio.sleep(0.01)
    assert writer.worked_s - before <= time.monotonic() - begun + 0.01, "no faster than time"
    gate.opened.set()
    await held
    async with asyncio.timeout(BOUND_S):
        while writer.worked_s != (rested := writer.worked_s):  # noqa: ASYNC110 - until it waits again
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    assert writer.worked_s == rested >= before + 0.05
