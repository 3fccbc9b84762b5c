"""A folder is read as a run: whole or with a sentence that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.capacity.run import load_run
from serve_app.capacity.run_folder import write_lines
from serve_app.capacity.samples import GENERATOR, GRAPH, PHASES, TURNS, Phase
from serve_app.errors import ConfigError
from tests.unit.capacity.test_phases import small_run, turn


def test_a_phase_that_was_broken_off_ends_when_the_run_did(tmp_path: Path) -> None:
    folder = small_run(tmp_path, [turn(1000.0)])
    write_lines(folder / PHASES, [Phase(3, "last", 1025.0, None, rate_per_s=9)])

    assert load_run(folder).phases[-1].ended_at == 1030.0


def test_a_phase_written_when_it_began_and_when_it_ended_is_one(tmp_path: Path) -> None:
    folder = small_run(tmp_path, [])
    (folder / PHASES).unlink()
    write_lines(
        folder / PHASES,
        [Phase(0, "one", 1000.0, None), Phase(1, "two", 1010.0, 1020.0), Phase(0, "one", 1000.0, 1009.0)],
    )

    assert [(phase.index, phase.ended_at) for phase in load_run(folder).phases] == [(0, 1009.0), (1, 1020.0)]


def test_turns_are_in_the_order_in_which_they_were_due(tmp_path: Path) -> None:
    run = load_run(small_run(tmp_path, [turn(1005.0), turn(1001.0), turn(1003.0)]))

    assert [one.due_at for one in run.turns] == [1001.0, 1003.0, 1005.0]


def test_what_nobody_wrote_is_empty(tmp_path: Path) -> None:
    folder = small_run(tmp_path, [])
    assert not (folder / GRAPH).exists()
    assert not (folder / GENERATOR).exists()

    run = load_run(folder)

    assert (run.graph, run.generator, run.sessions, run.turns) == ((), (), (), ())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        load_run(tmp_path / "nothing")


def test_a_run_without_a_phase_is_refused(tmp_path: Path) -> None:
    folder = small_run(tmp_path, [])
    (folder / PHASES).write_text("")

    with pytest.raises(ConfigError, match=r"names no phase.*Run it again"):
        load_run(folder)


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = small_run(tmp_path, [turn(1000.0)])
    with (folder / TURNS).open("a") as file:
        file.write('{"user": 5}\n')

    with pytest.raises(ConfigError, match=r"turns\.jsonl:2"):
        load_run(folder)
