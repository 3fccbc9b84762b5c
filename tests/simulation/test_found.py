"""Schedules that have found something, each the smallest that does: they stay, so that it stays found."""

from __future__ import annotations

from tests.simulation.schedule import READ_TOOL, WRITE_TOOL, Action, Fault, Schedule, Step
from tests.simulation.simulation import simulate


def one_turn(*steps: Step, fault: Fault, piece_s: float = 0.02) -> Schedule:
    return Schedule((Action("send", 0.0, steps=steps),), (fault,), clients=1, piece_s=piece_s)


def test_a_result_that_was_shown_is_not_unknown_to_the_next_owner() -> None:
    # Events and starts, the text, the result; its owner dies before the checkpoint that follows.
    simulate(one_turn(Step(1, (WRITE_TOOL,)), Step(2), fault=Fault("append", 2, "die_after")))


def test_results_of_a_step_are_kept_however_fast_the_next_step_is() -> None:
    # Step 1 asks for its tool while the append before is on its way, so both checkpoints wait for the next.
    steps = (Step(1, (READ_TOOL, WRITE_TOOL)), Step(0, (READ_TOOL,)), Step(1))
    simulate(one_turn(*steps, fault=Fault("append", 3, "die_after"), piece_s=0.001))


def test_a_repeated_append_takes_no_result_back() -> None:
    steps = (Step(1, (READ_TOOL, WRITE_TOOL)), Step(1))
    simulate(one_turn(*steps, fault=Fault("append", 2, "twice", 0.02)))


def test_a_repeated_append_of_an_earlier_step_is_taken_as_written() -> None:
    steps = (Step(1, (READ_TOOL, WRITE_TOOL)), Step(0, (READ_TOOL,)), Step(1))
    simulate(one_turn(*steps, fault=Fault("append", 3, "twice", 0.02)))


def test_calls_that_the_last_step_may_not_make_are_not_made_after_a_takeover() -> None:
    steps = (Step(1, (READ_TOOL,)), Step(0, (READ_TOOL,)), Step(1, (WRITE_TOOL,)))
    for nth in range(12):
        simulate(one_turn(*steps, fault=Fault("append", nth, "die_after"), piece_s=0.05))
