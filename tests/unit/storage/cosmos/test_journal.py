"""Usage that waits to be written outlives the process that gathered it."""

from __future__ import annotations

from pathlib import Path

from serve_app.domain.usage import Usage
from serve_app.storage.cosmos.journal import FileJournal
from serve_app.storage.cosmos.usage import UsageRow


def row(number: int) -> UsageRow:
    return UsageRow.made(
        tenant_id="acme",
        user_id="anna",
        conversation_id="c1",
        turn_id=f"c1.01A{number}",
        model_id="m1",
        usage=Usage(input_tokens=number, output_tokens=1),
        at_us=1_700_000_000_000_000,
        request_charge=1.5,
    )


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
