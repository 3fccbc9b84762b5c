"""Calls are counted to the second, however they end; a loop that comes late is seen."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import Internal, NotFound, Overloaded, ParleyError, QuotaExceeded
from serve_app.stage_load import LoopLag, StageLoad


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def load(clock: Clock) -> StageLoad:
    return StageLoad(clock)


def test_calls_at_once_are_busy_for_the_sum_of_their_times(clock: Clock, load: StageLoad) -> None:
    load.begin()
    clock.now += 2
    load.begin()
    clock.now += 3
    assert (load.ongoing, load.calls) == (2, 2)
    assert load.busy_s == pytest.approx(8), "those that run now are in it until now"
    load.end()
    clock.now += 1
    load.end()
    clock.now += 100
    assert (load.ongoing, load.calls, load.failed) == (0, 2, 0)
    assert load.busy_s == pytest.approx(9)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), max_size=40), st.floats(0, 200))
def test_busy_time_is_that_of_adding_up_every_call_by_itself(calls: list[tuple[float, float]], read_at: float) -> None:
    clock = Clock()
    load = StageLoad(clock)
    events = sorted([(at, 0) for at, _ in calls] + [(at + lasts, 1) for at, lasts in calls])
    for at, ends in events:
        if at > read_at:
            break
        clock.now = 1_000 + at
        load.end() if ends else load.begin()
    clock.now = 1_000 + read_at
    expected = sum(max(0.0, min(at + lasts, read_at) - at) for at, lasts in calls)
    assert load.busy_s == pytest.approx(expected, abs=1e-6)
    assert load.calls == sum(at <= read_at for at, _ in calls)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (ValueError("a defect"), 1),
        (Internal("a defect that was told"), 1),
        (Overloaded("too much"), 1),
        (NotFound("not there"), 0),
        (QuotaExceeded("enough"), 0),
        (asyncio.CancelledError(), 0),
    ],
)
def test_a_call_ends_however_it_ends_and_only_failures_of_the_stage_are_failures(
    clock: Clock, load: StageLoad, error: BaseException, failed: int
) -> None:
    with pytest.raises(type(error)), load.running():
        clock.now += 1.5
        raise error
    clock.now += 10
    assert (load.ongoing, load.calls, load.failed) == (0, 1, failed)
    assert load.busy_s == pytest.approx(1.5)


async def test_a_call_that_is_called_off_is_over_at_once(load: StageLoad, clock: Clock) -> None:
    begun = asyncio.Event()

    async def call() -> None:
        with load.running():
            begun.set()
            await asyncio.Event().wait()

    calls = [asyncio.create_task(call()) for _ in range(3)]
    await begun.wait()
    clock.now += 4
    assert load.ongoing == 3
    calls[0].cancel()
    await asyncio.gather(calls[0], return_exceptions=True)
    clock.now += 1
    assert (load.ongoing, load.failed) == (2, 0)
    assert load.busy_s == pytest.approx(14)
    for one in calls:
        one.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert load.ongoing == 0


def test_calls_within_calls_are_counted_each(load: StageLoad) -> None:
    with load.running(), load.running():
        assert load.ongoing == 2
    assert (load.ongoing, load.calls) == (0, 2)


def test_every_error_of_ours_is_either_a_refusal_or_a_failure() -> None:
    for kind in ParleyError.__subclasses__():
        load = StageLoad()
        with pytest.raises(kind), load.running():
            raise kind("A sentence.")
        assert load.failed == (kind.status >= 500), kind


# The loop


async def test_a_loop_that_is_held_up_is_seen_by_every_reader_and_forgotten_after_a_while() -> None:
    lag = LoopLag()
    lag.start()
    try:
        assert lag.recent_ms < 100
        time.sleep(0.25)  # noqa: ASYNC251 - what is to be seen
        assert lag.recent_ms > 100, "also by who reads before the beat comes"
        await asyncio.sleep(0)
        assert (lag.recent_ms > 100, lag.recent_ms > 100) == (True, True), "nobody takes it from another"
        assert lag.taken_ms > 100
        async with asyncio.timeout(20):
            while lag.recent_ms > 100:  # noqa: ASYNC110 - a clock tells nobody
                await asyncio.sleep(0.05)
    finally:
        lag.stop()


async def test_what_was_taken_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    lag = LoopLag(clock)
    monkeypatch.setattr("serve_app.stage_load.BEAT_S", 0.001)
    lag.start()
    try:
        clock.now += 0.5
        async with asyncio.timeout(10):
            while lag.recent_ms < 400 or clock.now - lag._due > 0:  # noqa: ASYNC110 - until the beat has come
                await asyncio.sleep(0.001)
        assert lag.taken_ms == pytest.approx(499, abs=2)
        assert lag.taken_ms == pytest.approx(0, abs=1)
        assert lag.recent_ms == pytest.approx(499, abs=2), "others still read it"
    finally:
        lag.stop()


async def test_a_probe_that_has_stopped_says_nothing() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    assert lag.recent_ms == 0, "nor one that has not begun"
    lag.start()
    lag.stop()
    clock.now += 100
    assert lag.recent_ms == 0
