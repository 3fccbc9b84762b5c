"""What gave way first is named, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from serve_app.capacity.report import Report, make_report
from serve_app.capacity.run import Run, load_run
from tests.unit.capacity.synthetic import Model, write_run


def report_of(folder: Path, model: Model) -> Report:
    return make_report(load_run(write_run(folder, model)))


@pytest.mark.parametrize(
    "model",
    [
        Model(rates=(10, 20, 30, 40, 50)),
        Model(rates=(10, 20, 25, 30), writer_s=0.04),
        Model(rates=(4, 8, 12, 16, 20), turn_cpu_s=0.06),
        Model(rates=(2, 4, 6, 8, 10), tool_slots=2, tools_share=1.0),
    ],
    ids=["model", "writer", "loop", "tools"],
)
def test_the_known_bottleneck_is_named(tmp_path: Path, model: Model) -> None:
    found = report_of(tmp_path, model).saturation

    assert found.kind == "resource"
    assert (found.stage, found.resource) == model.bottleneck
    first = found.filling[0]
    assert (first.stage, first.resource) == model.bottleneck
    assert first.full_at_per_s == pytest.approx(model.limit_per_s, rel=0.07)


def test_the_reason_has_figures(steps_report: Report) -> None:
    found = steps_report.saturation

    assert found.sentence == "The slots of the model gateway gave way first."
    assert "of 60 were taken" in found.why
    assert "calls stood in line" in found.why
    assert "A turn takes 1.4" in found.why  # 0.3 s + 59 × 20 ms


def test_slots_that_fill_because_of_others_are_not_the_cause(tmp_path: Path) -> None:
    """The store is slow, so that turns stay, and the few slots of the turns stage fill as well."""
    run = load_run(write_run(tmp_path, Model(rates=(10, 20, 25, 30, 35), writer_s=0.04)))
    report = make_report(with_slots(run, "Turns", 60))
    full = {(use.stage, use.resource) for use in report.resources if use.phase == 5 and use.utilisation > 0.9}

    assert full == {("Turns", "slots"), ("Store", "writer")}
    assert (report.saturation.stage, report.saturation.resource) == ("Store", "writer")


def with_slots(run: Run, stage: str, slots: int) -> Run:
    graph = tuple(
        msgspec.structs.replace(
            state,
            replicas=tuple(msgspec.structs.replace(r, slots=slots) if r.stage == stage else r for r in state.replicas),
        )
        for state in run.graph
    )
    return replace(run, graph=graph)


def test_a_run_below_the_knee_says_what_is_next(tmp_path: Path) -> None:
    found = report_of(tmp_path, Model(rates=(5, 10, 20, 25))).saturation

    assert found.kind == "none"
    assert "the load ended before a limit was reached" in found.sentence
    assert "Next in line: the slots of the model gateway" in found.why
    assert found.filling[0].full_at_per_s == pytest.approx(Model().limit_per_s, rel=0.07)


def test_one_load_does_not_tell_what_turns_take_of_the_machine(tmp_path: Path) -> None:
    """Others work on its cores too; two loads tell them apart."""
    one = report_of(tmp_path / "one", Model(rates=(10,))).saturation
    two = report_of(tmp_path / "two", Model(rates=(5, 20))).saturation

    assert [item.full_at_per_s for item in one.filling if item.resource == "cpu"] == [None]
    assert all(item.full_at_per_s for item in two.filling if item.resource == "cpu")


def test_cores_that_others_use_are_said_to_be_used_by_others(tmp_path: Path) -> None:
    """The machine's two cores are busy all the time, and what is carried breaks off without a shortage of its own."""
    run = load_run(write_run(tmp_path, Model(rates=(5, 10, 20, 30, 40, 50), cores=2)))
    graph = tuple(
        msgspec.structs.replace(
            state,
            nodes=tuple(msgspec.structs.replace(n, cpu_s=1.98 * (state.at - run.info.began_at)) for n in state.nodes),
        )
        for state in run.graph
    )
    found = make_report(with_slots(replace(run, graph=graph), "ModelGateway", 1000)).saturation

    assert (found.kind, found.resource) == ("resource", "cpu")
    assert found.sentence == "The machine's CPU cores gave way first."
    assert "99% busy at the lightest load already" in found.why
    assert "A turn takes" not in found.why


def test_a_generator_that_is_short_of_cpu_is_blamed(tmp_path: Path) -> None:
    """Turns are late because they were sent late; nothing of the graph is used up."""
    run = load_run(write_run(tmp_path, Model(rates=(5, 10, 15, 20), generator_cpu=0.98)))
    turns = tuple(
        msgspec.structs.replace(turn, turn_ms=(turn.turn_ms or 0) + 9000.0, late_ms=9000.0) if turn.phase == 4 else turn
        for turn in run.turns
    )
    report = make_report(replace(run, turns=turns))

    assert report.saturation.kind == "generator"
    assert report.answer.headline.endswith("the load generator could make no more.")
    assert not report.answer.exact
    assert not report.generator.healthy
    assert report.generator.sentence in report.caveats


def test_turns_that_wait_for_a_free_user_are_not_the_generators_fault(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, Model(rates=(5, 10), late_ms=2000)))
    full = tuple(msgspec.structs.replace(sample, waiting=7) for sample in run.generator)

    assert not make_report(run).generator.healthy
    report = make_report(replace(run, generator=full))
    assert report.generator.healthy
    assert any("7 turns waited for a free one" in caveat for caveat in report.caveats)


def test_several_generator_processes_count_by_their_busiest(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, Model(rates=(5, 10), generator_cpu=0.1)))
    second = tuple(msgspec.structs.replace(sample, cpu_share=0.95) for sample in run.generator)
    report = make_report(replace(run, generator=run.generator + second))

    assert report.generator.phases[0].cpu_share == pytest.approx(0.95)


def test_a_provider_that_gets_slower_is_told_from_a_shortage(tmp_path: Path) -> None:
    """Its calls take six times as long in the last phase; its slots are many."""
    run = load_run(write_run(tmp_path, Model(rates=(5, 10, 15, 20), model_slots=5000)))
    begun = run.phases[-1].began_at

    def slower(run: Run) -> Run:
        turns = tuple(
            msgspec.structs.replace(turn, ttft_ms=(turn.ttft_ms or 0) + 8000, turn_ms=(turn.turn_ms or 0) + 8000)
            if turn.due_at >= begun
            else turn
            for turn in run.turns
        )
        graph = []
        for state in run.graph:
            past = max(state.at - begun, 0.0)
            replicas = tuple(
                msgspec.structs.replace(r, busy_s=r.busy_s + past * 160) if r.stage == "ModelGateway" else r
                for r in state.replicas
            )
            graph.append(msgspec.structs.replace(state, replicas=replicas))
        return replace(run, turns=turns, graph=tuple(graph))

    found = make_report(slower(run)).saturation

    assert (found.kind, found.stage) == ("slower", "ModelGateway")
    assert "had to wait longer for what it calls" in found.sentence


def test_a_quota_that_is_used_up_is_named(tmp_path: Path) -> None:
    """It lets 25 calls a second through; the slots behind it are many."""
    limited = Model(rates=(10, 20, 30, 40), model_slots=37, phase_s=60, quota_rpm=1500)
    found = make_report(with_slots(load_run(write_run(tmp_path, limited)), "ModelGateway", 1000)).saturation

    assert (found.kind, found.stage, found.resource) == ("resource", "simulated", "requests")
    assert found.sentence == "The quota of requests of provider simulated gave way first."


def test_stages_that_nobody_read_are_said_to_be_unknown(tmp_path: Path) -> None:
    run = replace(load_run(write_run(tmp_path, Model(rates=(10, 20, 30, 40, 50)))), graph=())
    report = make_report(run)

    assert report.saturation.kind == "unread"
    assert any("could not be read" in caveat for caveat in report.caveats)
    assert report.knee.rate_per_s == pytest.approx(Model().limit_per_s, rel=0.07)
