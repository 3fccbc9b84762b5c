"""The sampler: readings become lines, and whatever the target answers, the load goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.capacity.run_folder import read_lines
from serve_app.capacity.sampler import GraphSampler
from serve_app.capacity.samples import GRAPH
from serve_app.domain.stages import GraphState
from serve_app.errors import NotFound, NotPermitted, ParleyError, Unauthenticated, UpstreamFailed

PATIENCE_S = 10.0


class Target:
    """Answers as scripted, the last answer again and again; ``asked`` is set when it was asked ``until`` times."""

    def __init__(self, *answers: float | ParleyError, until: int = 1) -> None:
        self._answers = answers
        self._until = until
        self.count = 0
        self.asked = threading.Event()

    def read(self) -> GraphState:
        answer = self._answers[min(self.count, len(self._answers) - 1)]
        self.count += 1
        if self.count >= self._until:
            self.asked.set()
        if isinstance(answer, ParleyError):
            raise answer
        return GraphState(at=answer)


@pytest.fixture(autouse=True)
def _beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of these tests answer in the first seconds of 1970."""
    monkeypatch.setattr(time, "time", lambda: 1.0)


def sampled(target: Target, folder: Path, said: Callable[[str], None] | None = None) -> GraphSampler:
    with GraphSampler(target.read, folder, every_s=0.001, tell=said) as sampler:
        assert target.asked.wait(PATIENCE_S)
    return sampler


def test_every_reading_is_a_line(tmp_path: Path) -> None:
    target = Target(1.0, 2.0, 3.0, 4.0, until=4)
    sampler = sampled(target, tmp_path)
    lines = read_lines(tmp_path / GRAPH, GraphState)
    assert [line.at for line in lines[:4]] == [1.0, 2.0, 3.0, 4.0]
    assert len(lines) == target.count == sampler.taken
    assert sampler.problem == ""


@pytest.mark.parametrize(("at", "told"), [(61.0, "60 s ahead of"), (-61.0, "62 s behind"), (3.5, "")])
def test_a_target_whose_clock_is_another_is_told_of(tmp_path: Path, at: float, told: str) -> None:
    problem = sampled(Target(at, at - 0.5, at), tmp_path).problem
    assert (told in problem) if told else not problem


def test_the_end_of_a_short_run_is_sampled_too(tmp_path: Path) -> None:
    target = Target(1.0, 2.0)
    with GraphSampler(target.read, tmp_path, every_s=3_600):
        assert target.asked.wait(PATIENCE_S)
    assert [line.at for line in read_lines(tmp_path / GRAPH, GraphState)] == [1.0, 2.0]


def test_the_span_is_some_readings_long_and_ends_with_the_newest(tmp_path: Path) -> None:
    target = Target(*map(float, range(20)), until=20)
    sampler = GraphSampler(target.read, tmp_path, every_s=0.001)
    assert sampler.span() is None
    with sampler:
        assert target.asked.wait(PATIENCE_S)
    span = sampler.span()
    assert span is not None
    assert span[1].at == 19.0
    assert 0 < span[1].at - span[0].at <= 5


@pytest.mark.parametrize("refusal", [NotFound("no such page."), NotPermitted("not you."), Unauthenticated("who?")])
def test_a_target_that_refuses_is_told_of_once_and_asked_no_more(tmp_path: Path, refusal: ParleyError) -> None:
    said: list[str] = []
    target = Target(refusal)
    with GraphSampler(target.read, tmp_path, every_s=0.001, tell=said.append) as sampler:
        for thread in threading.enumerate():
            if thread.name == "graph-sampler":
                thread.join(PATIENCE_S)  # it ends by itself, while the load goes on
                assert not thread.is_alive()
    assert target.count == 1
    assert said == [f"There are no figures of the stages: {refusal.message}"] == [sampler.problem]
    assert read_lines(tmp_path / GRAPH, GraphState) == []


def test_a_target_that_does_not_answer_for_a_while_leaves_a_hole_and_is_told_of_once(tmp_path: Path) -> None:
    said: list[str] = []
    away = UpstreamFailed("it did not answer in time.")
    target = Target(1.0, away, away, 4.0, until=4)
    sampler = sampled(target, tmp_path, said.append)
    assert [line.at for line in read_lines(tmp_path / GRAPH, GraphState)][:2] == [1.0, 4.0]
    assert len(said) == 1
    assert "The load goes on." in said[0]
    assert sampler.problem == f"2 of {target.count} readings of the stages are missing: it did not answer in time."


def test_a_full_disk_ends_the_sampling_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serve_app.capacity.sampler.LineWriter.write", full)
    said: list[str] = []
    sampler = sampled(Target(1.0), tmp_path, said.append)
    assert "No space left on device" in sampler.problem
    assert len(said) == 1
