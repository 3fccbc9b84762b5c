"""Open arrivals: a Poisson process from a seed; what nobody takes waits, and nothing is taken twice or lost."""

from __future__ import annotations

import statistics
from itertools import pairwise
from random import Random

import gevent
import pytest

from load_tests.arrivals import Arrivals, Due, offsets
from load_tests.clock import now


def test_arrivals_have_the_rate_and_the_randomness_of_a_poisson_process() -> None:
    moments = list(offsets(20, 1000, Random("1")))
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    gaps = [after - before for before, after in pairwise(moments)]
    assert statistics.fmean(gaps) == pytest.approx(0.05, rel=0.03)
    assert statistics.pstdev(gaps) == pytest.approx(0.05, rel=0.05)
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 1000


def test_the_same_seed_asks_at_the_same_moments() -> None:
    assert list(offsets(5, 60, Random("a"))) == list(offsets(5, 60, Random("a")))
    assert list(offsets(5, 60, Random("a"))) != list(offsets(5, 60, Random("b")))


def test_every_arrival_is_taken_once_when_it_is_due_or_waits_with_its_own_moment() -> None:
    arrivals = Arrivals([3, 1], "7")
    began = now()
    arrivals.begin(4, 100, began, 0.5)
    taken: list[tuple[int, Due, float]] = []

    def take(entry: int) -> None:
        while (due := arrivals.take(entry, 1.0)) is not None:
            taken.append((entry, due, now()))

    takers = [gevent.spawn(take, entry) for entry in (0, 0, 0, 1)]
    gevent.joinall(takers, timeout=10)
    planned = [began + offset for offset in offsets(100, 0.5, Random("7:4"))]
    assert sorted(due.at for _, due, _ in taken) == pytest.approx(planned)
    assert all(at >= due.at for _, due, at in taken)
    assert arrivals.due[4] == len(taken)
    assert sum(entry == 0 for entry, _, _ in taken) > sum(entry == 1 for entry, _, _ in taken)
    assert not arrivals.waiting()


def test_what_nobody_takes_waits_in_order_and_can_be_given_up() -> None:
    arrivals = Arrivals([1], "7")
    arrivals.begin(0, 200, now(), 0.1)
    gevent.sleep(0.3)
    waiting = arrivals.waiting()
    assert waiting == sorted(waiting)
    assert arrivals.take(0, 1.0) == waiting[0]
    assert arrivals.give_up(older_than_s=100) == []
    assert arrivals.give_up() == waiting[1:]
    assert arrivals.waiting() == []


def test_a_user_who_is_ended_while_waiting_takes_nothing_along() -> None:
    arrivals = Arrivals([1], "7")
    taker = gevent.spawn(arrivals.take, 0, 10)
    gevent.sleep(0)
    taker.kill()
    arrivals.begin(0, 200, now(), 0.05)
    assert arrivals.take(0, 5) is not None
    assert arrivals.due[0] == 1 + len(arrivals.waiting())


def test_an_end_of_arrivals_is_an_end() -> None:
    arrivals = Arrivals([1], "7")
    arrivals.begin(0, 100, now(), 60)
    assert arrivals.take(0, 5) is not None
    arrivals.stop()
    arrivals.give_up()
    assert arrivals.take(0, 0.2) is None
