"""Usage that waits to be written outlives the process that gathered it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from serve_app.domain.usage import Usage
from serve_app.domain.usage import UsageRow as Consumed
from serve_app.storage.cosmos import usage
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.journal import FileJournal
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.usage import UsageRow, UsageRows


def row(number: int) -> UsageRow:
    consumed = Consumed(
        tenant_id="acme",
        user_id="anna",
        conversation_id="c1",
        turn_id=f"c1.01A{number}",
        model_id="m1",
        usage=Usage(input_tokens=number, output_tokens=1, cost_microusd=7, estimated=True),
        at=datetime.fromtimestamp(1_700_000_000, UTC),
    )
    return UsageRow.of(consumed, request_charge=1.5)


def left_by_the_dead(journal: FileJournal) -> None:
    """The lock goes with the process, the file stays."""
    journal._file.close()


def test_what_a_dead_process_left_is_read_once(tmp_path: Path) -> None:
    dead = FileJournal(tmp_path)
    for number in range(3):
        dead.add(row(number))
    left_by_the_dead(dead)
    first = FileJournal(tmp_path)
    assert first.read() == [row(0), row(1), row(2)]
    assert FileJournal(tmp_path).read() == []


def test_rows_read_again_are_kept_until_they_are_written(tmp_path: Path) -> None:
    dead = FileJournal(tmp_path)
    dead.add(row(1))
    left_by_the_dead(dead)
    dead_too = FileJournal(tmp_path)
    assert dead_too.read() == [row(1)]
    left_by_the_dead(dead_too)
    last = FileJournal(tmp_path)
    assert last.read() == [row(1)]
    last.keep_only([])
    last.close()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    alive = FileJournal(tmp_path)
    alive.add(row(1))
    assert FileJournal(tmp_path).read() == []
    alive.keep_only([row(1)])
    left_by_the_dead(alive)
    assert FileJournal(tmp_path).read() == [row(1)]


def test_a_line_that_was_torn_costs_no_other(tmp_path: Path) -> None:
    dead = FileJournal(tmp_path)
    dead.add(row(1))
    dead._file.write(b'{"id":"x","tena')
    left_by_the_dead(dead)
    assert FileJournal(tmp_path).read() == [row(1)]


class Full:
    """A journal on a disk that takes nothing."""

    def read(self) -> list[UsageRow]:
        return []

    def add(self, row: UsageRow) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def keep_only(self, rows: Iterable[UsageRow]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Rows:
    """Takes what is written; refuses as many times as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.written: list[str] = []
        self.wrote = asyncio.Event()

    async def write(self, container: object, partition: object, operations: Sequence[Operation]) -> list[str]:
        if self.refusals:
            self.refusals -= 1
            raise Refused(404, 0, perhaps_written=False)
        self.written += [operation.id for operation in operations]
        self.wrote.set()
        return [""] * len(operations)


@pytest.mark.parametrize("flush_s", [0.0, 0.01])
async def test_a_journal_that_cannot_be_written_fails_nobody_and_the_rows_are_written(flush_s: float) -> None:
    there = Rows()
    rows = UsageRows(cast(Connection, there), flush_s=flush_s, journal=Full())
    await rows.add([row(1)])
    async with asyncio.timeout(10):
        await there.wrote.wait()
        there.wrote.clear()
        await rows.add([row(2)])
        await there.wrote.wait()
    await rows.flush()
    await rows.close()
    assert there.written == [row(1).id, row(2).id]


@pytest.mark.parametrize("flush_s", [0.0, 0.01])
async def test_rows_that_were_refused_are_written_without_another_coming(
    flush_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_AGAIN_S", 0.01)
    there = Rows(refusals=3)
    rows = UsageRows(cast(Connection, there), flush_s=flush_s)
    await rows.add([row(1)])
    async with asyncio.timeout(10):
        await there.wrote.wait()
    assert there.written == [row(1).id]
    await rows.close()


def test_what_was_left_stays_where_it_cannot_be_kept_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = FileJournal(tmp_path)
    dead.add(row(1))
    left_by_the_dead(dead)
    with monkeypatch.context() as patched:
        journal = FileJournal(tmp_path)
        patched.setattr(journal, "add", Full().add)
        assert journal.read() == [row(1)]
    for _, file in journal._left:
        file.close()
    assert FileJournal(tmp_path).read() == [row(1)]
