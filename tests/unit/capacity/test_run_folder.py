"""A run's folder: what is written is read again, half a line at the end is left out, and anything else is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.capacity.run_folder import (
    LineWriter,
    discard,
    each_line,
    new_folder,
    read_info,
    read_lines,
    write_info,
    write_lines,
)
from serve_app.capacity.samples import PHASES, RUN, SCENARIO, TURNS, Phase, RunInfo, TurnSample
from serve_app.errors import ConfigError

TURN = TurnSample(user="ws_chat-1", phase=1, due_at=10.0, sent_at=10.1, ttft_ms=99.5, gaps_ms=(1.0, 2.5))
INFO = RunInfo(name="smoke", target="http://127.0.0.1:1", began_at=1.0, simulated=("model",), note="Größe")

turns = st.builds(
    TurnSample,
    user=st.text(max_size=8),
    phase=st.integers(0, 1000),
    due_at=st.floats(0, 2e9),
    sent_at=st.floats(0, 2e9),
    ttft_ms=st.none() | st.floats(0, 1e7),
    gaps_ms=st.lists(st.floats(0, 1e6), max_size=4).map(tuple),
    code=st.sampled_from(["", "overloaded", "no_end"]),
    detail=st.text(max_size=20),
)


@given(st.lists(turns, max_size=20))
def test_what_was_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, samples: list[TurnSample]) -> None:
    path = tmp_path_factory.mktemp("run") / TURNS
    assert write_lines(path, samples) == len(samples)
    assert read_lines(path, TurnSample) == samples


def test_lines_can_be_read_while_they_are_written(tmp_path: Path) -> None:
    with LineWriter[TurnSample](tmp_path / TURNS) as writer:
        writer.write(TURN)
        assert read_lines(tmp_path / TURNS, TurnSample) == [TURN]


def test_two_writers_append_to_one_file_without_mixing_lines(tmp_path: Path) -> None:
    with LineWriter[TurnSample](tmp_path / TURNS) as one, LineWriter[TurnSample](tmp_path / TURNS) as other:
        for _ in range(50):
            one.write(TURN)
            other.write(TURN)
    assert read_lines(tmp_path / TURNS, TurnSample) == [TURN] * 100


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / TURNS, TurnSample) == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_half_a_line_at_the_end_is_left_out(tmp_path: Path, cut: int) -> None:
    write_lines(tmp_path / TURNS, [TURN, TURN])
    content = (tmp_path / TURNS).read_bytes()
    (tmp_path / TURNS).write_bytes(content[: -cut - 1])
    assert read_lines(tmp_path / TURNS, TurnSample) == [TURN]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{]\n", "JSON is malformed"),
        (b'{"user": "a", "phase": "first", "due_at": 1, "sent_at": 1}\n', "$.phase"),
        (b'{"user": "a"}\n', "phase"),
        (b"\xff\xfe\n", ""),
        (b"\n", ""),
    ],
)
def test_any_other_line_that_cannot_be_read_is_named_with_file_and_line(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    write_lines(tmp_path / TURNS, [TURN])
    with (tmp_path / TURNS).open("ab") as file:
        file.write(line)
    write_lines(tmp_path / TURNS, [TURN])
    with pytest.raises(ConfigError) as failure:
        read_lines(tmp_path / TURNS, TurnSample)
    assert f"{tmp_path / TURNS}:2: " in failure.value.message
    assert reason.lower() in failure.value.message.lower()


def test_more_lines_than_are_allowed_are_refused_and_not_read(tmp_path: Path) -> None:
    write_lines(tmp_path / TURNS, [TURN] * 4)
    assert len(read_lines(tmp_path / TURNS, TurnSample, max_lines=4)) == 4
    lines = each_line(tmp_path / TURNS, TurnSample, max_lines=3)
    assert [next(lines) for _ in range(3)] == [TURN] * 3
    with pytest.raises(ConfigError, match="more than 3 lines"):
        next(lines)


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.capacity.run_folder.MAX_LINE_BYTES", 1_000)
    (tmp_path / TURNS).write_bytes(b" " * 5_000)
    with pytest.raises(ConfigError, match=r"turns\.jsonl:1: the line is longer than 1,000 bytes"):
        read_lines(tmp_path / TURNS, TurnSample)


def test_what_was_run_is_read_again_and_replaced_as_a_whole(tmp_path: Path) -> None:
    write_info(tmp_path, INFO)
    later = msgspec.structs.replace(INFO, ended="done", ended_at=2.0)
    write_info(tmp_path, later)
    assert read_info(tmp_path) == later
    assert [path.name for path in tmp_path.iterdir()] == [RUN]


def test_a_folder_without_a_run_or_with_a_broken_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run \(run\.json is missing\)"):
        read_info(tmp_path)
    (tmp_path / RUN).write_text('{"name": 5}')
    with pytest.raises(ConfigError, match=r"run\.json cannot be used: expected `str`"):
        read_info(tmp_path)


def test_a_new_folder_is_made_and_one_with_a_run_in_it_is_refused(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "reports" / "one")
    assert new_folder(folder) == folder
    write_lines(folder / PHASES, [Phase(index=0, name="a", began_at=1.0)])
    with pytest.raises(ConfigError, match=r"already holds a run \(phases\.jsonl\)"):
        new_folder(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        new_folder(tmp_path / "file" / "below")


def test_discarding_leaves_what_is_not_a_runs(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write_info(new_folder(folder), INFO)
        (folder / SCENARIO).write_text("name: x")
    (two / "mine.txt").write_text("mine")
    discard(one)
    discard(two)
    assert not one.exists()
    assert [path.name for path in two.iterdir()] == ["mine.txt"]
