"""A second request where the first is slow to begin: whichever shows a piece first goes on, the other is given up.

The one that is given up has had its prompt read, which providers charge for. It reports no usage, so its prompt is counted
once more in the usage of the call, as an estimate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from serve_app.domain.generation import Generation
from serve_app.domain.usage import Usage
from serve_app.models.attempt import Attempt
from serve_app.models.call import Call
from serve_app.models.port import TextSink

CLOSE_S = 5.0
"""How long an attempt may take to close its connection when it is given up."""

StartAttempt = Callable[[TextSink], Attempt]
HedgeOutcome = Literal["won", "lost", "failed"]
"""What became of the second request: it answered, the first did, or neither."""


class _Lane:
    """One of two attempts at the same answer."""

    def __init__(self, start: StartAttempt, race: _Race) -> None:
        self._race = race
        self.attempt = start(self._pieces)
        self.task = asyncio.create_task(self.attempt.run())

    def _pieces(self, pieces: Sequence[str]) -> None:
        self._race.pieces(self, pieces)

    @property
    def has_succeeded(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


class _Race:
    def __init__(self, call: Call) -> None:
        self._call = call
        self.leader: _Lane | None = None
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pieces(self, lane: _Lane, pieces: Sequence[str]) -> None:
        if self.leader is None:
            self.leader = lane
            if not self.decided.done():
                self.decided.set_result(None)
        if self.leader is lane:  # else it has lost, and is about to hear of it
            self._call.show(pieces)


async def hedged(
    start: StartAttempt,
    call: Call,
    after_s: float,
    may_hedge: Callable[[], bool],
    ended: Callable[[HedgeOutcome], None],
) -> Generation:
    """The answer of an attempt, or of a second one that is started when the first has shown nothing after ``after_s``.

    ``may_hedge`` is asked then; ``ended`` is told, where there were two, which of them answered. Raises what the attempt
    raised that showed pieces, else what the first did. None runs any more when this returns.
    """
    race = _Race(call)
    lanes = [_Lane(start, race)]
    outcome: HedgeOutcome = "failed"
    try:
        await _first_of([lanes[0].task, race.decided], after_s)
        if not lanes[0].task.done() and race.leader is None and may_hedge():
            lanes.append(_Lane(start, race))
        while True:
            leader = race.leader or next((lane for lane in lanes if lane.has_succeeded), None)
            if leader is not None:
                break
            running = [lane.task for lane in lanes if not lane.task.done()]
            if not running:
                leader = lanes[0]
                break
            await _first_of([*running, race.decided])
        given_up = [lane for lane in lanes if lane is not leader and not lane.task.done()]
        await _close(given_up)
        generation = await leader.task
        outcome = "lost" if leader is lanes[0] else "won"
    finally:
        await _close(lanes)
        if len(lanes) > 1:
            ended(outcome)
    unpaid = sum(1 for lane in given_up if lane.attempt.admission is not None)
    if not unpaid:
        return generation
    prompt_tokens = generation.usage.input_tokens or call.prompt_tokens
    extra = Usage(input_tokens=unpaid * prompt_tokens, estimated=True)
    return replace(generation, usage=generation.usage + extra)


async def _first_of(
    waited_for: Sequence[asyncio.Future[Generation] | asyncio.Future[None]], for_s: float | None = None
) -> None:
    await asyncio.wait(waited_for, timeout=for_s, return_when=asyncio.FIRST_COMPLETED)


async def _close(lanes: Sequence[_Lane]) -> None:
    """Ends what still runs, and waits until its connections are closed."""
    running = [lane.task for lane in lanes if not lane.task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=CLOSE_S)
    for lane in lanes:
        if lane.task.done() and not lane.task.cancelled():
            lane.task.exception()  # looked at, or the loop complains that nobody did
