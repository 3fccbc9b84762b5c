"""One request to a provider: room in its quota, the breaker's leave, and an account of how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from serve_app.domain.generation import Generation
from serve_app.errors import InvalidInput, ParleyError, QuotaExceeded, Unreachable
from serve_app.models.adapter import ProviderAdapter
from serve_app.models.call import Call
from serve_app.models.endpoint import Admission, Endpoint
from serve_app.models.port import TextSink
from serve_app.models.provider_quota import NoReservation, ProviderQuota, Reservation
from serve_app.models.routes import Route

_CHARS_PER_TOKEN = 4


class NotAsked(Exception):
    """No request was made, because of ``failure``: the breaker is open, or the quota has no room."""

    def __init__(self, failure: ParleyError) -> None:
        super().__init__(failure)
        self.failure = failure


class Attempt:
    """Runs once. ``show`` takes the pieces; ``patience_s`` is how long it waits for the quota, at most."""

    __slots__ = (
        "_adapter",
        "_call",
        "_clock",
        "_endpoint",
        "_patience_s",
        "_quota",
        "_route",
        "_show",
        "_sink_failed",
        "admission",
    )

    def __init__(
        self,
        call: Call,
        route: Route,
        endpoint: Endpoint,
        adapter: ProviderAdapter,
        show: TextSink,
        *,
        quota: ProviderQuota | None,
        patience_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._route = route
        self._endpoint = endpoint
        self._adapter = adapter
        self._show = show
        self._quota = quota
        self._patience_s = patience_s
        self._clock = clock
        self._sink_failed = False
        self.admission: Admission | None = None
        """Set once a request is made."""

    async def run(self) -> Generation:
        """Raises NotAsked, and what the adapter raises. Times in the generation are since the call began."""
        if self._endpoint.refused_for_s() > 0:
            raise NotAsked(self._endpoint.refusal())
        reservation = await self._reserve()
        admission = self.admission = self._endpoint.admit()
        if admission is None:
            reservation.release()
            raise NotAsked(self._endpoint.refusal())
        began = self._clock()
        model = self._route.model
        try:
            generation = await self._adapter.generate(
                self._call.request, self._pieces, model.id, model.upstream, model.max_output_tokens
            )
        except ParleyError as failure:
            if self._sink_failed:
                admission.passed()
            else:
                admission.failed(failure, self._clock() - began)
            if isinstance(failure, Unreachable):
                reservation.release()
            else:
                refused = isinstance(failure, InvalidInput) or not admission.is_answered
                reservation.settle(0 if refused else self._used_so_far())
            raise
        except BaseException:  # cancelled, most likely; the prompt was read all the same
            admission.passed()
            reservation.settle(self._used_so_far())
            raise
        admission.completed()
        usage = generation.usage
        reservation.settle(usage.input_tokens + usage.output_tokens or self._used_so_far())
        self._endpoint.learn(usage.output_tokens or self._shown_tokens())
        waited_ms = round((began - self._call.began) * 1000)
        return generation if waited_ms <= 0 else _later(generation, waited_ms)

    async def _reserve(self) -> Reservation:
        if self._quota is None:
            return _NOTHING
        call = self._call
        expected = self._endpoint.expected_output_tokens()
        bound = call.request.settings.max_output_tokens or self._route.model.max_output_tokens
        tokens = call.prompt_tokens + (expected if bound is None else min(expected, bound))
        deadline = min(call.request.deadline, time.time() + self._patience_s)
        try:
            return await self._quota.reserve(
                self._endpoint.key, call.request.tenant_id, tokens, call.request.priority, deadline
            )
        except QuotaExceeded as failure:
            raise NotAsked(failure) from None

    def _pieces(self, pieces: Sequence[str]) -> None:
        admission = self.admission
        if admission is not None and not admission.is_answered:
            admission.answered()
        try:
            self._show(pieces)
        except BaseException:
            self._sink_failed = True
            raise

    def _used_so_far(self) -> int:
        return self._call.prompt_tokens + self._shown_tokens()

    def _shown_tokens(self) -> int:
        return self._call.chars // _CHARS_PER_TOKEN


def _later(generation: Generation, waited_ms: int) -> Generation:
    first = generation.first_delta_ms
    return replace(
        generation,
        first_delta_ms=None if first is None else first + waited_ms,
        duration_ms=generation.duration_ms + waited_ms,
    )


_NOTHING = NoReservation()
