"""What is written down is there, once, in its file, and no more of it is kept than fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests import writing
from load_tests.writing import Lines, RunFiles
from serve_app.capacity.run_folder import read_lines
from serve_app.capacity.samples import PHASES, SESSIONS, TURNS, Phase, SessionSample, TurnSample
from serve_app.errors import ConfigError


def turn(number: int) -> TurnSample:
    return TurnSample(
        user=f"u{number}", phase=1, due_at=1.5, sent_at=1.5, gaps_ms=(1.0, 2.5), detail='a "quoted"\nline'
    )


def test_samples_are_written_once_each_into_its_own_file(tmp_path: Path) -> None:
    files, lines = RunFiles(tmp_path / "new" / "report"), Lines()
    lines.add(turn(1))
    lines.add(turn(2))
    lines.add(SessionSample(user="u1", phase=1, at=1.0, connect_ms=3.0))
    files.write(lines.fetch())
    files.write(lines.fetch())
    lines.add(turn(3))
    lines.add(Phase(index=1, name="step 2", began_at=1.0))
    files.write(lines.fetch())
    folder = tmp_path / "new" / "report"
    assert read_lines(folder / TURNS, TurnSample) == [turn(1), turn(2), turn(3)]
    assert [one.connect_ms for one in read_lines(folder / SESSIONS, SessionSample)] == [3.0]
    assert [one.name for one in read_lines(folder / PHASES, Phase)] == ["step 2"]


def test_lines_that_nobody_fetches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_PENDING", 3)
    lines = Lines()
    for number in range(5):
        lines.add(turn(number))
    assert lines.dropped == 2
    assert len(lines.fetch()[TURNS]) == 3


def test_without_a_folder_nothing_is_written_and_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    lines = Lines()
    lines.add(turn(1))
    RunFiles(None).write(lines.fetch())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Nothing can be written"):
        RunFiles(tmp_path / "file" / "report")
