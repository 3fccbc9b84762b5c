"""What the gateway remembers of the places it calls: one model of one provider, by the operator's key or by a tenant's own.

What happens by a tenant's own key (its quota is used up, say) changes nothing for anybody else. Only whether the provider can
be reached at all is the same by every key, and of all of its models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from serve_app.errors import DeadlineExceeded, ParleyError, QuotaExceeded, Unfinished, Unreachable, UpstreamFailed
from serve_app.models.breaker import Breaker
from serve_app.models.retry_budget import RetryBudget
from serve_app.models.routes import Route
from serve_app.telemetry import Metrics, logger

MOST_KEPT = 4096
"""Endpoints remembered beyond those of the models file: clients can make up names, and tenants have keys of their own."""
SILENT_S = 10.0
"""A call that had so long and got no sign of life failed; with less time, it was its caller's deadline."""
_AFTER_PROBE_S = 0.5
_GUESSED_OUTPUT_TOKENS = 300.0
_LEARNED = 0.1

log = logger("models")


class Endpoint:
    """One model of one provider by one key. ``key`` is ``provider/model``, ``label`` its name in metrics."""

    __slots__ = ("_output_tokens", "breaker", "budget", "by_own_key", "key", "label", "provider_breaker")

    def __init__(
        self,
        key: str,
        label: str,
        breaker: Breaker,
        provider_breaker: Breaker,
        budget: RetryBudget,
        *,
        by_own_key: bool,
    ) -> None:
        self.key = key
        self.label = label
        self.breaker = breaker
        self.provider_breaker = provider_breaker
        self.budget = budget
        self.by_own_key = by_own_key
        self._output_tokens = _GUESSED_OUTPUT_TOKENS

    @property
    def is_open(self) -> bool:
        """Whether calls are probes now."""
        return self.breaker.is_open or self.provider_breaker.is_open

    def refused_for_s(self) -> float:
        """How long no call is made here; 0 where one would be now."""
        if not self.is_open:
            return 0.0
        return max(self.breaker.refused_for_s(), self.provider_breaker.refused_for_s())

    def refusal(self) -> UpstreamFailed:
        provider, _, model = self.key.partition("/")
        return UpstreamFailed(
            f"The model {model!r} of the provider {provider!r} has been failing, so it is not asked for a moment; try again.",
            True,
            round(self.refused_for_s() + _AFTER_PROBE_S, 1),
        )

    def admit(self) -> Admission | None:
        """Lets a call through, or does not."""
        if self.is_open and self.refused_for_s() > 0:  # asked first: a probe that one lets through is used up
            return None
        provider = self.provider_breaker.admit()
        own = self.breaker.admit()
        return None if provider is None or own is None else Admission(self, own, provider)

    def expected_output_tokens(self) -> int:
        """How long answers have been here lately."""
        return int(self._output_tokens)

    def learn(self, output_tokens: int) -> None:
        self._output_tokens += _LEARNED * (output_tokens - self._output_tokens)


class Admission:
    """A call that was let through, and what it tells of itself."""

    __slots__ = ("_endpoint", "_own", "_provider", "is_answered")

    def __init__(self, endpoint: Endpoint, own: int, provider: int) -> None:
        self._endpoint = endpoint
        self._own = own
        self._provider = provider
        self.is_answered = False

    def answered(self) -> None:
        """The first sign of life; what comes after it is no news."""
        if not self.is_answered:
            self.is_answered = True
            self._reached()
            self._own = self._endpoint.breaker.answered(self._own)

    def completed(self) -> None:
        self.answered()
        self._endpoint.breaker.completed(self._own)

    def failed(self, failure: ParleyError, lasted_s: float) -> None:
        """What is the caller's mistake, or would be the same for ever, is no failure of the endpoint's."""
        if isinstance(failure, Unreachable):
            self._endpoint.provider_breaker.failed(self._provider, was_answered=self.is_answered)
        elif isinstance(failure, Unfinished):  # or the requests of one tenant could close it to all
            self.completed()
        elif isinstance(failure, UpstreamFailed | QuotaExceeded) and failure.retryable:
            self._reached()
            self._own_failed(failure)
        elif isinstance(failure, DeadlineExceeded) and not self.is_answered and lasted_s >= SILENT_S:
            self._own_failed(failure)
        else:
            self.passed()

    def passed(self) -> None:
        """It ended, and says nothing of the endpoint."""
        self._endpoint.breaker.passed(self._own)
        self._endpoint.provider_breaker.passed(self._provider)

    def _own_failed(self, failure: ParleyError) -> None:
        self._endpoint.breaker.failed(self._own, was_answered=self.is_answered, retry_after_s=failure.retry_after_s)

    def _reached(self) -> None:
        breaker = self._endpoint.provider_breaker
        self._provider = breaker.answered(self._provider)
        breaker.completed(self._provider)


class Endpoints:
    """All of them. Those of the models file by the operator's key are kept for good, others while they are among the latest."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._listed: dict[tuple[str, str], Endpoint] = {}
        self._others: OrderedDict[tuple[str, str, str], Endpoint] = OrderedDict()
        self._budgets: OrderedDict[tuple[str, str], RetryBudget] = OrderedDict()
        self._providers: dict[str, Breaker] = {}
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._listed) + len(self._others)

    def of(self, route: Route, own_of: str | None) -> Endpoint:
        """The endpoint of a route by the operator's key, or by the own one of the tenant ``own_of``."""
        model = route.model.id
        if own_of is None and route.listed:
            listed = self._listed.get((route.provider, model))
            if listed is None:
                key = f"{route.provider}/{model}"
                listed = self._listed[route.provider, model] = self._make(route, key, RetryBudget(), own=False)
            return listed
        at = route.provider, model, own_of or ""
        other = self._others.get(at)
        if other is None:
            label = f"{route.provider}/{'own key' if own_of is not None else 'other'}"
            # A name that was made up just now brings no attempts of its own.
            budget = RetryBudget() if route.listed else self._budget(route.provider, own_of or "")
            other = self._others[at] = self._make(route, label, budget, own=own_of is not None)
            if len(self._others) > MOST_KEPT:
                _, oldest = self._others.popitem(last=False)
                if oldest.breaker.is_open:
                    self._count(oldest.label, False)
        else:
            self._others.move_to_end(at)
        return other

    def _make(self, route: Route, label: str, budget: RetryBudget, *, own: bool) -> Endpoint:
        key = f"{route.provider}/{route.model.id}"
        breaker = Breaker(self._clock, self._chance, partial(self._changed, label, key))
        provider = self._providers.get(route.provider)
        if provider is None:
            changed = partial(self._changed, route.provider, route.provider)
            provider = self._providers[route.provider] = Breaker(self._clock, self._chance, changed)
        return Endpoint(key, label, breaker, provider, budget, by_own_key=own)

    def _budget(self, provider: str, own_of: str) -> RetryBudget:
        budget = self._budgets.get((provider, own_of))
        if budget is None:
            budget = self._budgets[provider, own_of] = RetryBudget()
            if len(self._budgets) > MOST_KEPT:
                self._budgets.popitem(last=False)
        return budget

    def _changed(self, label: str, key: str, is_open: bool) -> None:
        self._count(label, is_open)
        if is_open:
            log.warning("model endpoint fails, calls are held back", endpoint=key)
        else:
            log.info("model endpoint answers again", endpoint=key)

    def _count(self, label: str, is_open: bool) -> None:
        count = self._open[label] = max(0, self._open.get(label, 0) + (1 if is_open else -1))
        self._metrics.gauge("parley_breaker_open", count, endpoint=label)
