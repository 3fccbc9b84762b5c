"""What the providers' quotas of the models file are, and how many calls at once they can feed."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.models.config import ModelsConfig, RateConfig
from serve_app.rates.port import Rate

HEADROOM = 1.25
"""Calls at once beyond the mean, as calls do not come evenly."""

Limits = Mapping[str, Mapping[str, Rate]]
"""By provider, then by model; the provider's own under ``""``. Without those that have no limit."""
Calls = Mapping[str, Mapping[str, tuple[float, float]]]
"""By provider, then by model: the mean duration of calls in seconds, and the mean of their tokens."""


def limits_of(config: ModelsConfig) -> dict[str, dict[str, Rate]]:
    limits: dict[str, dict[str, Rate]] = {}
    for provider in config.providers:
        named = [("", provider.quota)]
        if provider.models != "*":
            named += [(model.id, model.quota) for model in provider.models]
        of = {name: _rate(quota) for name, quota in named if quota is not None and (quota.rpm or quota.tpm)}
        if of:
            limits[provider.name] = of
    return limits


def useful_streams(config: ModelsConfig, limits: Limits, calls: Calls) -> float | None:
    """How many calls at once the quotas feed: by Little's law, as many as may begin in a second, times how long they take.

    None where nobody can tell: a provider or a model has no limit, or nothing has been called yet.
    """
    total = 0.0
    for provider in config.providers:
        of, seen = limits.get(provider.name, {}), calls.get(provider.name, {})
        by_models = provider.models != "*" and all(model.id in of for model in provider.models)
        if "" not in of and not by_models:
            return None
        known = []
        if "" in of and seen:
            known.append(max(_streams(of[""], *call) for call in seen.values()))
        if by_models and seen:
            known.append(sum(_streams(of[model], *call) for model, call in seen.items() if model in of))
        total += min(known, default=0.0)
    return total * HEADROOM if total > 0 else None


def _streams(rate: Rate, duration_s: float, tokens: float) -> float:
    most: list[float] = []
    if rate.requests is not None:
        most.append(rate.requests)
    if rate.tokens is not None:
        most.append(rate.tokens / max(tokens, 1.0))
    return min(most) / 60 * duration_s


def _rate(quota: RateConfig) -> Rate:
    return Rate(requests=quota.rpm, tokens=quota.tpm)
