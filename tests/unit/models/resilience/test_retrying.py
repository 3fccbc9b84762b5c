"""When a call is made again, and how long is waited for that."""

from __future__ import annotations

import asyncio
import time

import pytest

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    ParleyError,
    QuotaExceeded,
    Unreachable,
    UpstreamFailed,
)
from serve_app.models.attempt import NotAsked
from serve_app.models.breaker import IN_A_ROW, Breaker
from serve_app.models.call import Call
from serve_app.models.endpoint import Endpoint
from serve_app.models.retry_budget import RetryBudget
from serve_app.models.retrying import MAX_RETRY_AFTER_S, MAX_WAIT_S, Retries
from tests.unit.models.resilience.timing import Chance, Clock

ANSWER = Generation(model_id="m", finish_reason="stop", text="Hi")


class Bench:
    def __init__(self, *outcomes: ParleyError | Exception | None, chance: float = 0.0, time_s: float = 100.0) -> None:
        """``outcomes`` of the attempts in order; None is an answer, and the last is repeated."""
        self.clock, self.chance = Clock(), Chance(chance)
        quiet = Breaker(self.clock, self.chance, lambda _: None)
        self.endpoint = Endpoint("p/m", "p/m", Breaker(self.clock, self.chance, lambda _: None), quiet, RetryBudget(),
                                 by_own_key=False)  # fmt: skip
        self.retries = Retries(self.clock, self.chance)
        request = ModelRequest(messages=(ModelMessage(role="user"),), deadline=time.time() + time_s)
        self.call = Call(request, lambda _: None, self.clock(), self.clock() + time_s)
        self.outcomes = list(outcomes)
        self.attempts = self.announced = 0
        self.waits = asyncio.Event()

    async def attempt(self) -> Generation:
        outcome = self.outcomes[min(self.attempts, len(self.outcomes) - 1)]
        self.attempts += 1
        if outcome is not None:
            raise outcome
        return ANSWER

    def announce(self) -> None:
        self.announced += 1
        self.waits.set()

    async def run(self, most: int = 2, patience_s: float = float("inf")) -> Generation:
        return await self.retries.run(
            self.attempt, self.call, self.endpoint, most=most, patience_s=patience_s, repeated=self.announce
        )


async def test_what_may_pass_is_tried_again_and_announced() -> None:
    for failure in (UpstreamFailed("x"), Unreachable("x"), QuotaExceeded("x")):
        bench = Bench(failure, failure, None)
        assert await bench.run() is ANSWER
        assert (bench.attempts, bench.announced) == (3, 2)


@pytest.mark.parametrize(
    "failure",
    [
        InvalidInput("x"),
        UpstreamFailed("wrong key", False),
        QuotaExceeded("used up", False),
        DeadlineExceeded("x"),
        Internal("x"),
        NotAsked(UpstreamFailed("held back", True, 0.0)),
        RuntimeError("a fault of ours"),
    ],
    ids=lambda failure: f"{type(failure).__name__} {failure}",
)
async def test_what_will_not_pass_is_told_at_once(failure: Exception) -> None:
    bench = Bench(failure)
    with pytest.raises(type(failure)) as caught:
        await bench.run()
    assert caught.value is failure
    assert bench.attempts == 1


async def test_nothing_is_repeated_once_a_piece_was_shown() -> None:
    bench = Bench(UpstreamFailed("x"))
    bench.call.show(["Hi"])
    with pytest.raises(UpstreamFailed):
        await bench.run()
    assert bench.attempts == 1


async def test_the_number_of_attempts_is_bounded() -> None:
    bench = Bench(UpstreamFailed("x"))
    with pytest.raises(UpstreamFailed):
        await bench.run(most=3)
    assert bench.attempts == 4


async def test_without_budget_there_is_no_other_attempt() -> None:
    bench = Bench(UpstreamFailed("x"))
    while bench.endpoint.budget.take():
        pass
    with pytest.raises(UpstreamFailed):
        await bench.run()
    assert bench.attempts == 1


async def test_what_the_breaker_holds_back_is_not_repeated() -> None:
    bench = Bench(UpstreamFailed("x"))
    for _ in range(IN_A_ROW):
        bench.endpoint.breaker.failed(0, was_answered=False)
    with pytest.raises(UpstreamFailed):
        await bench.run()
    assert bench.attempts == 1
    assert bench.endpoint.budget.take(), "and nothing is paid for it"


async def test_no_wait_reaches_past_the_deadline_and_none_is_longer_than_another_model_would_be() -> None:
    late = Bench(UpstreamFailed("x", True, 5.0), time_s=4.0)
    with pytest.raises(UpstreamFailed):
        await late.run()
    impatient = Bench(UpstreamFailed("x", True, 5.0))
    with pytest.raises(UpstreamFailed):
        await impatient.run(patience_s=2.0)
    assert (late.attempts, impatient.attempts) == (1, 1)


async def test_a_wait_can_be_cancelled() -> None:
    bench = Bench(UpstreamFailed("x", True, 9.0))
    task = asyncio.create_task(bench.run())
    await asyncio.wait_for(bench.waits.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.attempts == 1


async def test_so_many_wait_at_a_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.models.retrying.MAX_WAITING", 1)
    bench = Bench(UpstreamFailed("x", True, 9.0))
    waiting = asyncio.create_task(bench.run())
    await asyncio.wait_for(bench.waits.wait(), 10)
    with pytest.raises(UpstreamFailed):
        await bench.run()
    assert bench.announced == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bench.outcomes = [UpstreamFailed("x"), None]
    bench.attempts = 0
    assert await bench.run() is ANSWER, "there is room again"


def test_waits_are_drawn_from_zero_up_to_a_bound_that_grows() -> None:
    failure = UpstreamFailed("x")
    for chance in (0.0, 0.5, 1.0):
        retries = Retries(Clock(), Chance(chance))
        waits = [retries.wait_s(failure, nth) for nth in range(6)]
        assert waits == [chance * bound for bound in (0.5, 1.0, 2.0, 4.0, 8.0, MAX_WAIT_S)]


def test_when_the_provider_says_when_to_come_back_it_is_not_before_and_not_for_ever() -> None:
    for chance in (0.0, 1.0):
        retries = Retries(Clock(), Chance(chance))
        for after_s in (0.005, 2.0, MAX_RETRY_AFTER_S):
            wait_s = retries.wait_s(QuotaExceeded("x", True, after_s), 1)
            assert wait_s is not None
            assert after_s <= wait_s <= after_s + min(after_s, 1.0)
        assert retries.wait_s(QuotaExceeded("x", True, MAX_RETRY_AFTER_S + 1), 0) is None
