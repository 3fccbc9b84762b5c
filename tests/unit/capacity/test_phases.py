"""The report's counts and percentiles are those that anybody computes from the raw lines."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from serve_app.capacity.phases import PhaseReport, phase_reports, within
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.run_folder import write_info, write_lines
from serve_app.capacity.samples import PHASES, SCENARIO, SESSIONS, TURNS, Phase, RunInfo, SessionSample, TurnSample
from tests.unit.capacity.conftest import STEPS
from tests.unit.capacity.synthetic import Model, scenario_text

SLO_TTFT_S = 1.0
SLO_TURN_S = 8.0


def raw(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def cut(values: list[float], percent: int) -> float:
    """A percentile by the standard library."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def check_against_raw_lines(
    folder: Path, reports: tuple[PhaseReport, ...], ttft_s: float | None, turn_s: float | None
) -> None:
    """Everything once more, from JSON, by other means."""
    lines = raw(folder, TURNS)
    for phase, report in zip(raw(folder, PHASES), reports, strict=True):
        mine = [line for line in lines if line["phase"] == phase["index"]]
        whole = [line for line in mine if not line.get("code")]
        seconds = phase["ended_at"] - phase["began_at"]
        assert report.due == len(mine)
        assert report.failed == sum(1 for line in mine if line.get("code"))
        assert report.complete == len(whole)
        assert report.offered_per_s == pytest.approx(len(mine) / seconds)
        good = [
            line for line in whole
            if (ttft_s is None or line.get("ttft_ms", 1e9) <= ttft_s * 1000)
            and (turn_s is None or line.get("turn_ms", 1e9) <= turn_s * 1000)
        ]  # fmt: skip
        assert report.good == len(good)
        assert report.goodput_per_s == pytest.approx(len(good) / seconds)
        by_code: dict[str, int] = {}
        for line in mine:
            if line.get("code"):
                by_code[line["code"]] = by_code.get(line["code"], 0) + 1
        assert report.codes == by_code
        for name, found in (("ttft_ms", report.ttft_ms), ("turn_ms", report.turn_ms)):
            times = [line[name] for line in whole if name in line]
            assert found.count == len(times)
            if times:
                expected = [cut(times, percent) for percent in (50, 90, 95, 99)]
                assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(expected)
                assert found.max == max(times)
        gaps = [gap for line in whole for gap in line.get("gaps_ms", ())]
        assert report.gap_ms.count == len(gaps)
        if gaps:
            assert report.gap_ms.p95 == pytest.approx(cut(gaps, 95))


def test_every_figure_of_a_phase_is_recomputed_from_its_lines(steps: Run, steps_folder: Path) -> None:
    reports = phase_reports(steps)

    assert sum(report.failed for report in reports) > 0  # else this would not tell much
    check_against_raw_lines(steps_folder, reports, STEPS.ttft_p95_s, STEPS.turn_p95_s)


TURN: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    phase=st.integers(0, 2),
    offset_s=st.floats(0, 9.99),
    ttft_ms=st.one_of(st.none(), st.floats(0.1, 5000)),
    rest_ms=st.floats(0, 20_000),
    gaps=st.lists(st.floats(0, 500), max_size=5),
    tokens=st.integers(0, 400),
    code=st.sampled_from(["", "", "", "overloaded", "no_end"]),
)


@given(st.lists(TURN, max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_same_holds_for_any_turns(tmp_path_factory: pytest.TempPathFactory, turns: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    samples = []
    for turn in turns:
        ttft = turn["ttft_ms"]
        due = 1000.0 + turn["phase"] * 10 + turn["offset_s"]
        took = None if turn["code"] == "no_end" else (ttft or 0.0) + turn["rest_ms"]
        samples.append(
            TurnSample(
                "ws_chat", turn["phase"], due, due, ttft, took, tuple(turn["gaps"]), turn["tokens"], code=turn["code"]
            )
        )
    small_run(folder, samples)
    check_against_raw_lines(folder, phase_reports(load_run(folder)), SLO_TTFT_S, SLO_TURN_S)


def small_run(folder: Path, turns: list[TurnSample], phases: int = 3, sessions: tuple[SessionSample, ...] = ()) -> Path:
    """A run of phases of ten seconds each, from the instant 1000 on."""
    folder.mkdir(exist_ok=True)
    (folder / SCENARIO).write_text(
        scenario_text(Model(ttft_p95_s=SLO_TTFT_S, turn_p95_s=SLO_TURN_S, rates=(1, 2)), "any")
    )
    write_info(folder, RunInfo("any", "http://127.0.0.1:1", 1000.0, 1000.0 + phases * 10))
    write_lines(
        folder / PHASES, [Phase(i, f"p{i}", 1000 + i * 10, 1010 + i * 10, rate_per_s=i + 1.0) for i in range(phases)]
    )
    write_lines(folder / TURNS, turns)
    if sessions:
        write_lines(folder / SESSIONS, sessions)
    return folder


def turn(
    due: float, phase: int = 0, turn_ms: float = 1000.0, code: str = "", tokens: int = 11, ttft_ms: float = 200.0
) -> TurnSample:
    return TurnSample("ws_chat", phase, due, due, ttft_ms, turn_ms, output_tokens=tokens, code=code)


def test_a_known_delay_of_tokens_is_recovered(steps: Run) -> None:
    """In the model a first text takes 300 ms where there is room, and tokens follow each other after 20."""
    calm = phase_reports(steps)[1]

    assert calm.ttft_ms.p50 == pytest.approx(STEPS.ttft_s * 1000, rel=0.05)
    assert calm.gap_ms.p50 == pytest.approx(STEPS.gap_s * 1000, rel=0.05)
    assert calm.output_tokens_per_turn == STEPS.tokens
    assert calm.tokens_per_s == pytest.approx(calm.achieved_per_s * STEPS.tokens)


def test_time_per_token_leaves_the_first_token_aside(tmp_path: Path) -> None:
    report = phase_reports(load_run(small_run(tmp_path, [turn(1000.0, turn_ms=1200, ttft_ms=200, tokens=11)])))[0]

    assert report.tpot_ms.p50 == pytest.approx(100)


def test_answers_to_an_earlier_load_do_not_count_as_achieved(tmp_path: Path) -> None:
    """Ten turns of a phase end in the next: there they are left out, for they came before its settled part."""
    turns = [turn(1009.0 + i / 20, turn_ms=1500) for i in range(10)]
    turns += [turn(1010.0 + i, phase=1, turn_ms=1500) for i in range(10)]
    quiet, next_one = phase_reports(load_run(small_run(tmp_path, turns)))[:2]

    assert quiet.window_complete == 0
    # From 1011.5 to 1020: those due at 1010 … 1018, and not the ten that end before.
    assert next_one.window_complete == 9
    assert next_one.window_due == 9
    assert next_one.kept_up == 1.0


def test_a_phase_that_leaves_turns_behind_falls_behind(tmp_path: Path) -> None:
    turns = [turn(1000.0 + i / 20, turn_ms=100 + 80 * i) for i in range(200)]
    report = phase_reports(load_run(small_run(tmp_path, turns)))[0]

    assert report.kept_up < 0.95
    assert report.falls_behind


def test_few_turns_more_or_less_are_chance(tmp_path: Path) -> None:
    """Nine of ten answered is less than 95 %, and means nothing."""
    turns = [turn(1000.0 + i, turn_ms=500) for i in range(9)] + [turn(1008.5, turn_ms=2500)]
    report = phase_reports(load_run(small_run(tmp_path, turns)))[0]

    assert report.kept_up < 0.95
    assert not report.falls_behind


@pytest.mark.parametrize(
    ("turns", "breaks"),
    [
        ([turn(1000.0 + i / 10) for i in range(50)], ()),
        ([turn(1000.0 + i / 10, ttft_ms=1500) for i in range(50)], ("ttft_p95",)),
        ([turn(1000.0 + i / 10, turn_ms=9000) for i in range(50)], ("turn_p95",)),
        ([turn(1000.0 + i / 10, code="overloaded" if i < 2 else "") for i in range(50)], ("errors",)),
        ([turn(1000.0 + i / 10, code="overloaded") for i in range(50)], ("errors",)),
        ([], ()),
    ],
)
def test_a_phase_keeps_the_slo_or_says_what_it_breaks(
    tmp_path: Path, turns: list[TurnSample], breaks: tuple[str, ...]
) -> None:
    report = phase_reports(load_run(small_run(tmp_path, turns)))[0]

    assert report.breaks == breaks
    assert report.meets_slo == (not breaks)


def test_tokens_of_a_turn_are_of_the_turns_that_say_how_many(tmp_path: Path) -> None:
    """The AI SDK's stream does not; as nothing they would make turns look cheap."""
    told = [replace(turn(1000.0 + i), output_tokens=100, input_tokens=400) for i in range(3)]
    report = phase_reports(load_run(small_run(tmp_path, [*told, turn(1004.0, tokens=0), turn(1005.0, tokens=0)])))[0]

    assert (report.output_tokens_per_turn, report.input_tokens_per_turn) == (100, 400)


def test_connections_are_counted_when_they_open_and_when_they_fail(tmp_path: Path) -> None:
    sessions = (
        SessionSample("idle", 0, 1001.0, connect_ms=4.0),
        SessionSample("idle", 0, 1002.0, connect_ms=6.0),
        SessionSample("idle", 0, 1009.0, held_s=8.0),
        SessionSample("idle", 0, 1003.0, code="connection"),
    )
    report = phase_reports(load_run(small_run(tmp_path, [], sessions=sessions)))[0]

    assert (report.connections, report.connections_failed) == (2, 1)
    assert report.connect_ms.p50 == 5.0


def test_a_turn_that_failed_is_never_good(steps: Run) -> None:
    """However fast it showed text."""
    assert within(steps.scenario.slo, turn(1000.0))
    assert not within(steps.scenario.slo, turn(1000.0, code="no_end"))
