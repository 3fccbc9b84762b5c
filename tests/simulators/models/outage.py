"""A provider that fails for a while, and turns that go on asking: what the provider sees of it, and what the turns get.

Runs on any event loop: on the simulation's, where a minute takes no time, or on a real one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError, QuotaExceeded, Unreachable, UpstreamFailed
from serve_app.models.port import ModelGateway, TextSink

STEP_ATTEMPTS = 3
"""A turn asks again as often where an answer breaks off in the middle."""
STEP_WAITS = 3
DEADLINE_S = 1000.0


@dataclass(frozen=True)
class Ways:
    """How an upstream fails: ``failure`` after ``after_s``; with ``pieces`` it has begun to answer by then."""

    failure: Callable[[], ParleyError]
    after_s: float = 0.02
    pieces: bool = False
    share: float = 1.0


OUTAGES = {
    "refused": Ways(lambda: Unreachable("It refuses connections.")),
    "connecting takes too long": Ways(lambda: Unreachable("It did not answer in time."), after_s=3.0),
    "status 500": Ways(lambda: UpstreamFailed("It failed.")),
    "status 503, come back in half a minute": Ways(lambda: UpstreamFailed("It failed.", True, 30.0)),
    "status 429, come back in two seconds": Ways(lambda: QuotaExceeded("Too many requests.", True, 2.0)),
    "drops without a word after a second": Ways(lambda: UpstreamFailed("It broke the connection."), after_s=1.0),
    "breaks off in the middle": Ways(lambda: UpstreamFailed("It broke the connection."), after_s=1.5, pieces=True),
    "four of five calls fail": Ways(lambda: UpstreamFailed("It failed."), share=0.8),
}


@dataclass
class Upstream:
    """Implements ``ProviderAdapter``. Between ``fails_at`` and ``works_at`` (the loop's seconds) it fails in ``ways``.

    Streams that run when the outage begins end as they would, unless the outage breaks answers off in the middle: then all
    of them break off at that moment.
    """

    rng: random.Random
    ways: Ways
    fails_at: float
    works_at: float
    first_piece_s: tuple[float, float] = (0.2, 1.0)
    answer_s: tuple[float, float] = (3.0, 9.0)
    name: str = "p"
    calls: list[float] = field(default_factory=list)
    running: int = 0

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        now = asyncio.get_running_loop().time()
        self.calls.append(now)
        self.running += 1
        try:
            if self.fails_at <= now < self.works_at and self.rng.random() < self.ways.share:
                await self._fail(on_text)
            await asyncio.sleep(self.rng.uniform(*self.first_piece_s))
            on_text(["Good "])
            await self._go_on(self.rng.uniform(*self.answer_s))
            on_text(["day."])
        finally:
            self.running -= 1
        return Generation(
            model_id=model, finish_reason="stop", text="Good day.", usage=Usage(input_tokens=5, output_tokens=2)
        )

    async def _go_on(self, for_s: float) -> None:
        left_s = self.fails_at - asyncio.get_running_loop().time()
        cut = self.ways.pieces and 0 < left_s <= for_s
        await asyncio.sleep(left_s if cut else for_s)
        if cut:
            raise self.ways.failure()

    async def _fail(self, on_text: TextSink) -> None:
        if self.ways.pieces:
            await asyncio.sleep(self.rng.uniform(*self.first_piece_s))
            on_text(["Go"])
        await asyncio.sleep(self.ways.after_s)
        raise self.ways.failure()

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        return ()

    def with_key(self, api_key: str) -> Upstream:
        return self

    async def aclose(self) -> None: ...


@dataclass
class TurnSeen:
    """One admitted turn, in the loop's seconds."""

    began: float
    ended: float = 0.0
    failure: ParleyError | None = None
    model_id: str = ""
    warning: str = ""


async def run_turns(
    models: ModelGateway, rng: random.Random, per_s: float, until_s: float, model_id: str = "m"
) -> list[TurnSeen]:
    """Admits turns at random moments, ``per_s`` on average, and returns all of them when the last has ended."""
    loop = asyncio.get_running_loop()
    seen: list[TurnSeen] = []
    tasks: list[asyncio.Task[None]] = []
    while loop.time() < until_s:
        turn = TurnSeen(loop.time())
        seen.append(turn)
        tasks.append(asyncio.create_task(_run_turn(models, turn, model_id)))
        await asyncio.sleep(rng.expovariate(per_s))
    await asyncio.gather(*tasks)
    return seen


async def _run_turn(models: ModelGateway, turn: TurnSeen, model_id: str) -> None:
    """As a step of a turn does: what broke off in the middle is asked again, after a moment where that is held back."""
    attempt, held_back = 1, 0
    while True:
        shown: list[str] = []
        request = ModelRequest(
            messages=(ModelMessage(role="user", content="Hi"),),
            deadline=time.time() + DEADLINE_S,
            model_id=model_id,
        )
        try:
            generation = await models.generate(request, shown.extend)
            turn.failure, turn.model_id, turn.warning = None, generation.model_id, generation.warning
            break
        except ParleyError as failure:
            turn.failure = failure
            if attempt > 1 and not shown and held_back < STEP_WAITS and failure.retry_after_s is not None:
                held_back += 1
                await asyncio.sleep(failure.retry_after_s)
                continue
            if not shown or not failure.retryable or attempt == STEP_ATTEMPTS:
                break
        await asyncio.sleep(0.2 * attempt)
        attempt += 1
    turn.ended = asyncio.get_running_loop().time()
