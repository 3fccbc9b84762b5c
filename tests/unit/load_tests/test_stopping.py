"""Steps stop when the graph can no more, and not before."""

from __future__ import annotations

from load_tests.stopping import Limits, StepsSeen
from load_tests.tally import FAILING_OF, Ended, Live, Tally
from serve_app.capacity.scenario import Slo


def test_two_bad_steps_in_a_row_are_enough_and_one_is_not() -> None:
    seen = StepsSeen()
    assert seen.enough("a", due=100, lost=5, failed=0) is None
    assert seen.enough("b", due=100, lost=11, failed=0) is None
    assert seen.enough("c", due=100, lost=10, failed=0) is None
    assert seen.enough("d", due=100, lost=50, failed=0) is None
    why = seen.enough("e", due=100, lost=50, failed=0)
    assert why is not None
    assert "in e 50 of 100" in why
    assert seen.found


def test_many_errors_are_enough_at_once() -> None:
    seen = StepsSeen()
    assert seen.enough("a", due=100, lost=21, failed=21) == "21 of 100 turns failed in a"
    assert not seen.found


def test_a_step_of_a_few_turns_says_nothing() -> None:
    assert StepsSeen().enough("a", due=5, lost=5, failed=5) is None


def test_a_turn_is_good_within_both_limits_and_lost_as_soon_as_it_is_past_one() -> None:
    limits = Limits.of(Slo(ttft_p95_s=1.5, turn_p95_s=10))
    assert limits.met(1500, 10_000)
    assert not limits.met(1501, 9_000)
    assert not limits.met(100, 10_001)
    assert not limits.met(None, 100)
    assert limits.past(1.6, has_text=False)
    assert not limits.past(1.6, has_text=True)
    assert limits.past(10.1, has_text=True)
    assert Limits.of(Slo()).past(11, has_text=False)
    assert not Limits.of(Slo()).past(1000, has_text=True)


def test_the_tally_adds_up_what_processes_say_and_what_has_ended() -> None:
    tally = Tally(Limits.of(Slo(ttft_p95_s=1)))
    tally.ended(Ended(1, ttft_ms=500, turn_ms=900))
    tally.ended(Ended(1, ttft_ms=1500, turn_ms=1900))
    tally.ended(Ended(1, code="overloaded"))
    tally.ended(Ended(0, ttft_ms=700, turn_ms=900))
    tally.is_now("a", Live(due=((0, 1), (1, 4)), lost=((1, 2),), running=2, waiting=1, users=5, cpu_share=0.2))
    tally.is_now("b", Live(due=((1, 3),), running=1, users=3, cpu_share=0.7))
    assert (tally.due_in(1), tally.lost_in(1)) == (7, 4)
    assert (tally.total.done, tally.total.good, tally.total.failed) == (4, 2, 1)
    live = tally.live
    assert dict(live.due) == {0: 1, 1: 7}
    assert (live.running, live.waiting, live.users, live.cpu_share) == (3, 1, 8, 0.7)
    assert tally.ttft_p95_ms is not None
    assert 700 < tally.ttft_p95_ms <= 1500
    tally.gone("b")
    assert (tally.due_in(1), tally.live.running, tally.live.users) == (7, 2, 5)


def test_it_is_told_when_most_of_the_last_turns_failed_whatever_came_before() -> None:
    tally = Tally(Limits.of(Slo()))
    for _ in range(1_000):
        tally.ended(Ended(1, ttft_ms=1, turn_ms=2))
    for _ in range(FAILING_OF // 2):
        tally.ended(Ended(1, code="overloaded"))
    assert tally.recently_failed == 0
    tally.ended(Ended(1, code="overloaded"))
    assert tally.recently_failed == FAILING_OF // 2 + 1


def test_a_few_failures_at_the_beginning_are_not_most() -> None:
    tally = Tally(Limits.of(Slo()))
    for _ in range(FAILING_OF - 1):
        tally.ended(Ended(1, code="overloaded"))
    assert tally.recently_failed == 0
