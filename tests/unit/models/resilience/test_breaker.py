"""The breaker: opens on an outage, lets single probes through, and closes with the first that is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.breaker import IN_A_ROW, MAX_WAIT_S, VOLUME, Breaker
from tests.unit.models.resilience.timing import Chance, Clock

WINDOW_S = 4.0


class Bench:
    def __init__(self, chance: float = 1.0) -> None:
        self.clock = Clock()
        self.chance = Chance(chance)
        self.changes: list[bool] = []
        self.breaker = Breaker(self.clock, self.chance, self.changes.append)

    def call(self, *, ok: bool) -> bool:
        """Whether a call was made; it ended at once."""
        admitted = self.breaker.admit()
        if admitted is None:
            return False
        if ok:
            self.breaker.completed(self.breaker.answered(admitted))
        else:
            self.breaker.failed(admitted, was_answered=False)
        return True

    def open(self) -> None:
        for _ in range(IN_A_ROW):
            self.call(ok=False)
        assert self.breaker.is_open

    def until_probe(self) -> float:
        wait_s = self.breaker.refused_for_s()
        self.clock.advance(wait_s)
        return wait_s


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_five_failures_in_a_row_open_it_and_one_success_between_starts_anew(bench: Bench) -> None:
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            bench.call(ok=False)
            bench.clock.advance(WINDOW_S * 2)
        bench.call(ok=True)
    assert not bench.breaker.is_open
    bench.open()
    assert bench.changes == [True]
    assert bench.breaker.admit() is None


def test_half_of_the_calls_of_the_last_seconds_open_it_once_there_are_enough(bench: Bench) -> None:
    for nth in range(VOLUME - 1):
        bench.call(ok=nth % 2 == 0)
    assert not bench.breaker.is_open, "too few to judge by"
    bench.call(ok=False)
    assert bench.breaker.is_open


def test_fewer_failures_than_half_never_open_it(bench: Bench) -> None:
    for nth in range(1000):
        bench.call(ok=nth % 5 not in (0, 2))
        bench.clock.advance(0.05)
    assert bench.changes == []


def test_what_was_before_the_window_does_not_count(bench: Bench) -> None:
    for _ in range(200):
        bench.call(ok=True)
    bench.clock.advance(WINDOW_S)
    for nth in range(VOLUME):
        bench.call(ok=nth % 2 == 0)
    assert bench.breaker.is_open, "200 successes long ago do not excuse anything"

    other = Bench()
    for nth in range(9):
        other.call(ok=nth % 2 == 1)
    other.clock.advance(WINDOW_S)
    for nth in range(9):
        other.call(ok=nth % 2 == 1)
    assert not other.breaker.is_open, "nor do failures long ago add to later ones"


def test_open_lets_one_probe_through_per_interval_whether_or_not_it_ever_ends(bench: Bench) -> None:
    bench.open()
    assert 0 < bench.until_probe() <= 1.0
    for _ in range(10):
        assert bench.breaker.admit() is not None
        assert bench.breaker.admit() is None, "one at a time"
        assert 1.0 < bench.until_probe() <= 2.0


def test_the_first_answer_to_a_probe_closes_it_before_the_probe_has_ended(bench: Bench) -> None:
    bench.open()
    bench.until_probe()
    admitted = bench.breaker.admit()
    assert admitted is not None
    bench.breaker.answered(admitted)
    assert not bench.breaker.is_open
    assert bench.changes == [True, False]
    assert all(bench.call(ok=True) for _ in range(20))


def test_calls_from_before_it_opened_say_nothing_afterwards(bench: Bench) -> None:
    old = [bench.breaker.admit() for _ in range(20)]
    bench.open()
    assert old[0] is not None and old[1] is not None
    bench.breaker.completed(bench.breaker.answered(old[0]))
    assert bench.breaker.is_open, "a stream from before the outage is no sign of its end"
    bench.until_probe()
    assert bench.call(ok=True)
    for admitted in old[1:]:
        assert admitted is not None
        bench.breaker.failed(admitted, was_answered=False)
    assert not bench.breaker.is_open


def test_answers_that_all_break_off_in_the_middle_open_it(bench: Bench) -> None:
    for _ in range(IN_A_ROW):
        assert not bench.breaker.is_open
        admitted = bench.breaker.admit()
        assert admitted is not None
        bench.breaker.failed(bench.breaker.answered(admitted), was_answered=True)
    assert bench.breaker.is_open


def test_streams_that_break_off_while_others_go_on_are_no_answers_after_all(bench: Bench) -> None:
    admitted = [bench.breaker.admit() for _ in range(20)]
    told = [bench.breaker.answered(one) for one in admitted if one is not None]
    for nth, one in enumerate(told):
        if nth % 2:
            bench.breaker.completed(one)
        else:
            bench.breaker.failed(one, was_answered=True)
    assert bench.breaker.is_open


def test_after_a_probe_that_deceived_it_opens_at_once_and_probes_less_often(bench: Bench) -> None:
    bench.open()
    bench.until_probe()
    admitted = bench.breaker.admit()
    assert admitted is not None
    bench.breaker.failed(bench.breaker.answered(admitted), was_answered=True)
    bench.call(ok=False)
    assert bench.changes == [True, False, True]
    assert bench.until_probe() == pytest.approx(2.4), "not at once, as after the first time"


def test_a_completed_call_ends_the_trial(bench: Bench) -> None:
    bench.open()
    bench.until_probe()
    bench.call(ok=True)
    for _ in range(IN_A_ROW - 1):
        bench.call(ok=False)
    assert not bench.breaker.is_open


def test_when_the_provider_wants_to_be_asked_later_it_is_within_reason(bench: Bench) -> None:
    for _ in range(IN_A_ROW):
        admitted = bench.breaker.admit()
        assert admitted is not None
        bench.breaker.failed(admitted, was_answered=False, retry_after_s=2.0)
    assert bench.until_probe() == 2.0
    admitted = bench.breaker.admit()
    assert admitted is not None
    bench.breaker.failed(admitted, was_answered=False, retry_after_s=3600.0)
    assert bench.until_probe() == MAX_WAIT_S


def test_a_probe_that_says_nothing_makes_room_for_the_next_at_once(bench: Bench) -> None:
    bench.open()
    bench.until_probe()
    admitted = bench.breaker.admit()
    assert admitted is not None
    assert bench.breaker.admit() is None
    bench.breaker.passed(admitted)
    assert bench.breaker.is_open
    assert bench.call(ok=True)
    assert not bench.breaker.is_open


def test_probes_of_many_replicas_are_spread() -> None:
    waits = set()
    for chance in (0.0, 0.25, 0.5, 0.75, 1.0):
        bench = Bench(chance)
        bench.open()
        first = bench.until_probe()
        bench.call(ok=False)
        waits.add((first, bench.until_probe()))
    assert len({first for first, _ in waits}) == 5
    assert len({second for _, second in waits}) == 5


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=200), st.floats(0, 1))
def test_whatever_happened_it_closes_with_the_first_success_and_never_later_than_three_seconds_and_a_call(
    history: list[tuple[bool, float]], chance: float
) -> None:
    bench = Bench(chance)
    for ok, pause_s in history:
        bench.call(ok=ok)
        bench.clock.advance(pause_s)
    assert bench.until_probe() <= MAX_WAIT_S
    assert bench.call(ok=True)
    assert not bench.breaker.is_open
