"""What a replica has asked of a provider in the last minute, and what of that each service it reports to has yet to hear.

Also what estimates turn out to be worth: they are scaled by what calls of the model used in the past, so that an estimate that
is always too low does no lasting harm.
"""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.rates.port import NOTHING, Amount, Rates, Spent

KEPT_S = 61
MEMORY = 0.05
"""The weight of the newest call in what is known of a model's calls."""
MIN_SCALE, MAX_SCALE = 0.25, 4.0
MAX_MODELS = 200


class Tab:
    """One service's view of a replica: what it was told last, what it has lent, what it has yet to hear."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.book: str | None = None
        self.number = 0
        self.unheard: dict[tuple[str, int], Amount] = {}
        self.held: dict[str, Amount] = {}
        self.until = 0.0

    def holds(self, model: str, now: float) -> Amount:
        return self.held.get(model, NOTHING) if now < self.until else NOTHING

    def note(self, model: str, at: float, amount: Amount) -> None:
        _add(self.unheard, (model, int(at)), amount)

    def report(self, now: float) -> tuple[Spent, ...]:
        """All that it has yet to hear; it is heard with this."""
        unheard, self.unheard = self.unheard, {}
        return tuple(
            # By the end of the second: what is counted too late is counted too long, and never too short.
            Spent(model=model, age_s=max(0.0, now - second - 1), amount=amount)
            for (model, second), amount in unheard.items()
            if now - second <= KEPT_S
        )


class Ledger:
    def __init__(self, *tabs: Tab) -> None:
        self._tabs = tabs
        self._minute: dict[tuple[str, int], Amount] = {}
        self._calls: dict[str, _Calls] = {}

    def note(self, model: str, at: float, amount: Amount, heard: Tab | None = None) -> None:
        """Something was spent, or is corrected; ``heard`` is the service that has counted it already."""
        _add(self._minute, (model, int(at)), amount)
        for tab in self._tabs:
            if tab is not heard:
                tab.note(model, at, amount)

    def tell_again(self, tab: Tab, now: float) -> None:
        """The service begins anew: it is to hear of the whole minute."""
        self.forget(now)
        tab.unheard = dict(self._minute)

    def forget(self, now: float) -> None:
        for kept in (self._minute, *(tab.unheard for tab in self._tabs)):
            for key in [key for key in kept if now - key[1] > KEPT_S]:
                del kept[key]

    def lately(self, now: float, within_s: float) -> dict[str, Amount]:
        """What was spent by model."""
        total: dict[str, Amount] = {}
        for (model, second), amount in self._minute.items():
            if now - second <= within_s:
                total[model] = total.get(model, NOTHING) + amount
        return total

    def scaled(self, model: str, estimate: int) -> int:
        calls = self._calls.get(model)
        return estimate if calls is None else max(1, round(estimate * calls.scale))

    def ended(self, model: str, estimate: int, used: int, duration_s: float) -> None:
        if used <= 0:
            return  # it was refused, which says nothing of other calls
        calls = self._calls.get(model)
        if calls is None:
            if len(self._calls) >= MAX_MODELS:
                return
            calls = self._calls[model] = _Calls(estimate, duration_s)
        calls.ended(estimate, used, duration_s)

    def calls(self) -> Mapping[str, tuple[float, float]]:
        """By model: the mean duration of its calls in seconds, and the mean of their tokens."""
        return {model: (calls.duration_s, calls.used) for model, calls in self._calls.items()}


class _Calls:
    """Running means over a model's calls, the newest weighing most."""

    def __init__(self, estimate: int, duration_s: float) -> None:
        self.estimate = float(estimate)
        self.used = float(estimate)  # the first are taken at their word
        self.duration_s = duration_s

    def ended(self, estimate: int, used: int, duration_s: float) -> None:
        self.estimate += MEMORY * (estimate - self.estimate)
        self.used += MEMORY * (used - self.used)
        self.duration_s += MEMORY * (duration_s - self.duration_s)

    @property
    def scale(self) -> float:
        return min(max(self.used / max(self.estimate, 1.0), MIN_SCALE), MAX_SCALE)


def _add(amounts: dict[tuple[str, int], Amount], key: tuple[str, int], amount: Amount) -> None:
    amounts[key] = amounts.get(key, NOTHING) + amount
