"""Other models for an answer that the one that was asked for cannot give.

They are asked in the order of the models file where an endpoint is held back by its breaker, has no room in its quota, or
failed before its first piece. What is the caller's mistake would be one everywhere. If nobody answers, it is the failure of the
model that was asked for that is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from serve_app.domain.generation import Generation
from serve_app.errors import InvalidInput, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.attempt import NotAsked
from serve_app.models.call import Call
from serve_app.models.routes import Route
from serve_app.telemetry import logger

log = logger("models")


async def first_answer(
    chain: Sequence[Route],
    call: Call,
    ask: Callable[[Route, bool], Awaitable[Generation]],
    fits: Callable[[Route], bool],
    fell_back: Callable[[Route, str], None],
) -> Generation:
    """The answer of the first route that gives one. ``ask`` is told whether another could be asked after it.

    ``fits``: whether a route can take the request at all. ``fell_back`` is told of the route that answered in place of the
    first, and in a word why. Raises ParleyError.
    """
    first: ParleyError | None = None
    retry_after_s: list[float] = []
    why = ""
    for position, route in enumerate(chain):
        if position and not fits(route):
            continue
        try:
            generation = await ask(route, position + 1 < len(chain))
        except (NotAsked, ParleyError) as stopped:
            failure = stopped.failure if isinstance(stopped, NotAsked) else stopped
            refused_there = position > 0 and isinstance(failure, InvalidInput)  # it may lack what the first one has
            if call.shown or not (refused_there or isinstance(failure, UpstreamFailed | QuotaExceeded)):
                raise failure from stopped.__cause__
            if failure.retryable and failure.retry_after_s is not None:
                retry_after_s.append(failure.retry_after_s)
            if first is None:
                first = failure
                why = _reason(failure, asked=not isinstance(stopped, NotAsked))
            continue
        if position == 0:
            return generation
        fell_back(route, why)
        log.warning(
            "another model answered", asked=chain[0].model.id, answered=route.model.id, reason=why,
            request_id=call.request.request_id, turn_id=call.request.turn_id,
        )  # fmt: skip
        return replace(generation, warning=_sentence(chain[0], route, why))
    assert first is not None  # noqa: S101 - a chain has a first route, and it was asked
    if len(retry_after_s) > 1 and first.retryable:
        raise type(first)(first.message, True, min(retry_after_s), first.details) from first
    raise first


def _reason(failure: ParleyError, *, asked: bool) -> str:
    if isinstance(failure, QuotaExceeded):
        return "quota"
    return "failed" if asked else "held_back"


_WORDS = {
    "quota": "has no room in its quota now",
    "failed": "could not answer",
    "held_back": "has been failing",
}


def _sentence(asked: Route, answered: Route, why: str) -> str:
    return f"The model {asked.model.id!r} {_WORDS[why]}, so {answered.model.id!r} answered instead."
