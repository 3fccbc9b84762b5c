"""When a call that failed is made again: before its first piece only, and seldom.

A further attempt needs a failure that may pass, room in the endpoint's budget, a breaker that is closed, and time before the
deadline. Waits grow and are drawn from zero up, so that those who failed together do not come back together; where the
provider says when to come back, not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from serve_app.domain.generation import Generation
from serve_app.errors import ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.call import Call
from serve_app.models.endpoint import Endpoint
from serve_app.telemetry import logger

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 8.0
MAX_RETRY_AFTER_S = 10.0
"""Beyond, when to come back is for the caller to decide."""
MAX_WAITING = 1000
"""Calls that wait for their next attempt at a time."""

log = logger("models")


class Retries:
    """Of all calls of one gateway. ``clock`` gives seconds, ``chance`` numbers from 0 to 1."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._waiting = 0

    async def run(
        self,
        attempt: Callable[[], Awaitable[Generation]],
        call: Call,
        endpoint: Endpoint,
        *,
        most: int,
        patience_s: float,
        repeated: Callable[[], None],
    ) -> Generation:
        """``attempt`` and up to ``most`` more, each announced to ``repeated``. Raises what the last one raised.

        ``patience_s``: the longest wait between two; where another model can answer, that is better than to wait longer.
        """
        retries = 0
        while True:
            try:
                return await attempt()
            except ParleyError as failure:
                if call.shown or retries >= most:
                    raise
                wait_s = self.wait_s(failure, retries)
                if wait_s is None or wait_s > patience_s or self._clock() + wait_s >= call.due:
                    raise
                if self._waiting >= MAX_WAITING or endpoint.is_open or not endpoint.budget.take():
                    raise
                retries += 1
                repeated()
                log.info(
                    "model call repeated", endpoint=endpoint.key, code=failure.code, retry=retries,
                    wait_s=round(wait_s, 3), request_id=call.request.request_id,
                )  # fmt: skip
            self._waiting += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                self._waiting -= 1

    def wait_s(self, failure: ParleyError, retries: int) -> float | None:
        """How long to wait after ``failure``, which ``retries`` retries went before; None where there is to be no other."""
        if not failure.retryable or not isinstance(failure, UpstreamFailed | QuotaExceeded):
            return None
        jittered = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0**retries) * self._chance()
        if failure.retry_after_s is None:
            return jittered
        # Not before that time; spread behind it by as much as it is long, within reason.
        after = failure.retry_after_s
        return after + min(jittered, after) if after <= MAX_RETRY_AFTER_S else None
