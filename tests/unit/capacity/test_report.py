"""A report says in sentences what its figures say, and keeps its names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.report import Report, make_report
from serve_app.capacity.report_html import write_report
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.samples import REPORT_JSON
from tests.unit.capacity.conftest import STEPS
from tests.unit.capacity.synthetic import Model, write_run


def test_the_answer_is_how_much_what_first_and_how_fast(steps_report: Report) -> None:
    answer = steps_report.answer

    assert answer.headline.startswith("This graph carries ")
    assert answer.carries_per_s == pytest.approx(STEPS.limit_per_s, rel=0.07)
    assert f"{answer.carries_per_s:.1f} turns/s within its SLO" in answer.headline
    assert answer.exact
    assert answer.gives_way.startswith("The slots of the model gateway gave way first.")
    assert "the first text comes after" in answer.latency
    assert "allowed 1.5 s" in answer.latency


def test_the_latency_quoted_is_that_of_the_last_load_that_kept_the_slo(steps_report: Report) -> None:
    at = next(phase for phase in steps_report.phases if phase.index == steps_report.answer.at_phase)

    assert at.meets_slo
    heavier = [phase for phase in steps_report.phases if phase.measured and phase.load > at.load]
    assert heavier
    assert all(not phase.meets_slo for phase in heavier)


def test_a_run_without_a_limit_says_at_least(tmp_path: Path) -> None:
    answer = make_report(load_run(write_run(tmp_path, Model(rates=(5, 10, 15))))).answer

    assert "carries at least" in answer.headline
    assert answer.headline.endswith("and more was not tried.")
    assert not answer.exact


def test_a_graph_that_never_keeps_the_slo_is_not_said_to_carry_anything(tmp_path: Path) -> None:
    answer = make_report(load_run(write_run(tmp_path, Model(rates=(5, 10, 15), ttft_p95_s=0.1)))).answer

    assert answer.carries_per_s is None
    assert answer.headline.startswith("Not even the lightest load")


def test_answers_that_fall_behind_are_a_limit_though_the_slo_is_kept(tmp_path: Path) -> None:
    """First texts stay fast when the store is slow; the SLO says nothing of whole answers."""
    model = Model(rates=(10, 20, 25, 30), writer_s=0.04)
    report = make_report(load_run(write_run(tmp_path, model)))

    assert not report.limit.reached
    assert report.answer.exact
    assert report.answer.carries_per_s == report.knee.rate_per_s
    assert report.answer.carries_per_s == pytest.approx(model.limit_per_s, rel=0.07)
    assert report.answer.headline.endswith("can answer no more than that.")


def test_a_run_of_few_turns_says_nothing_of_a_limit(tmp_path: Path) -> None:
    report = make_report(load_run(write_run(tmp_path, Model(rates=(0.2, 0.3)))))

    assert "too few turns" in report.answer.headline
    assert any("Not judged" in caveat for caveat in report.caveats)


def test_users_of_a_closed_loop_are_the_load(steps: Run) -> None:
    phases = tuple(
        msgspec.structs.replace(phase, rate_per_s=None, users=10 * number, measured=number > 0)
        for number, phase in enumerate(steps.phases)
    )
    report = make_report(replace(steps, phases=phases))
    judged = [phase for phase in report.phases if phase.measured]

    assert [phase.load for phase in judged] == [10.0 * number for number in range(1, len(judged) + 1)]
    assert not any(phase.open for phase in judged)
    assert "users within its SLO" in report.answer.headline


def test_a_load_that_stays_the_same_is_asked_whether_latency_grew(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, Model(rates=(10, 10, 10, 10))))
    steady = make_report(run).drift
    began = run.phases[-1].began_at
    leaking = tuple(
        msgspec.structs.replace(turn, ttft_ms=(turn.ttft_ms or 0) * 2) if turn.due_at >= began else turn
        for turn in run.turns
    )
    grown = make_report(replace(run, turns=leaking)).drift

    assert steady is not None
    assert not steady.grew
    assert grown is not None
    assert grown.grew
    assert grown.ttft_p95_ratio == pytest.approx(2, rel=0.1)
    assert "grew" in grown.sentence


def test_after_a_spike_it_is_said_how_long_it_took(tmp_path: Path) -> None:
    """40 s of 55 turns/s where 40 are carried leave 600 turns: at 5 a second the rest of 35 clears them in about 17 s."""
    report = make_report(load_run(write_run(tmp_path, Model(rates=(5, 55, 5), phase_s=40))))
    (recovery,) = report.recoveries

    assert (recovery.overload_phase, recovery.phase) == (2, 3)
    assert recovery.seconds == pytest.approx((55 - Model().limit_per_s) * 40 / Model().limit_per_s, rel=0.25)
    assert f"it took {recovery.seconds:.0f} s until every turn was good again" in recovery.sentence
    # What came after the peak began with its turns, and does not count against its own load.
    assert report.limit.good_phase == 1
    assert report.answer.headline.startswith("This graph carries at least 5")
    assert "and fewer than 5" in report.answer.headline


def test_a_phase_that_ends_before_it_recovered_says_so(tmp_path: Path) -> None:
    report = make_report(load_run(write_run(tmp_path, Model(rates=(5, 100, 5), phase_s=15))))

    assert report.recoveries[0].seconds is None
    assert "not yet good again" in report.recoveries[0].sentence


def test_different_loads_have_no_drift(steps_report: Report) -> None:
    assert steps_report.drift is None


def test_failures_are_listed_with_what_the_first_one_said(steps_report: Report, steps: Run) -> None:
    count = sum(1 for turn in steps.turns if turn.code == "overloaded")

    assert [(item.of, item.code, item.count, item.example) for item in steps_report.failures] == [
        ("turns", "overloaded", count, "no slot in time")
    ]


def test_a_run_broken_off_on_one_machine_with_simulators_says_so(steps: Run) -> None:
    caveats = make_report(replace(steps, info=msgspec.structs.replace(steps.info, ended="interrupted"))).caveats

    assert any("broken off" in caveat for caveat in caveats)
    noted = msgspec.structs.replace(steps.info, note="Limits were raised.")
    assert "Limits were raised." in make_report(replace(steps, info=noted)).caveats
    assert any(caveat.startswith("Simulated in this run: provider and tools.") for caveat in caveats)
    assert any("shared one machine of 8 cores" in caveat for caveat in caveats)
    elsewhere = replace(steps, info=msgspec.structs.replace(steps.info, target="https://chat.example.com"))
    assert not any("shared one machine" in caveat for caveat in make_report(elsewhere).caveats)


def test_the_json_is_the_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Model(rates=(5, 10, 15), phase_s=10))
    report = write_report(folder)
    read = msgspec.json.decode((folder / REPORT_JSON).read_bytes(), type=Report)

    assert read == report


def test_names_in_the_json_stay(tmp_path: Path) -> None:
    """Other programs read them: a name may be added, and none may go without a new ``version``."""
    folder = write_run(tmp_path, Model(rates=(5, 10, 15), phase_s=10))
    write_report(folder)
    tree = json.loads((folder / REPORT_JSON).read_text())

    assert tree["version"] == 1
    assert set(tree) >= {
        "version", "run", "scenario", "slo", "answer", "totals", "limit", "knee", "saturation", "phases", "ttft_ms", "turn_ms",
        "resources", "stages", "generator", "scalability", "drift", "recoveries", "failures", "caveats", "percentiles",
    }  # fmt: skip
    assert set(tree["phases"][0]) >= {
        "index", "name", "measured", "open", "load", "users", "began_at", "seconds", "due", "complete", "failed", "good",
        "error_share", "offered_per_s", "achieved_per_s", "goodput_per_s", "kept_up", "running", "tokens_per_s", "codes",
        "ttft_ms", "turn_ms", "tpot_ms", "gap_ms", "late_ms", "connections", "connect_ms", "meets_slo", "breaks",
    }  # fmt: skip
    assert set(tree["phases"][0]["ttft_ms"]) == {"count", "mean", "p50", "p90", "p95", "p99", "max"}
    assert {field.name for field in msgspec.structs.fields(PhaseReport)} == set(tree["phases"][0])
