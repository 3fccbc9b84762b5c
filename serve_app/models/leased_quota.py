"""The quota of providers, held by all replicas together through a service beside the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from serve_app.domain.ids import new_id
from serve_app.domain.priority import Priority
from serve_app.models.config import ModelsConfig
from serve_app.models.provider_account import ProviderAccount
from serve_app.models.provider_limits import Limits, limits_of, useful_streams
from serve_app.models.provider_quota import NoReservation, Reservation
from serve_app.rates.port import Rates
from serve_app.telemetry import Metrics

WAIT_S: dict[Priority, float] = {"live": 30.0, "batch": 120.0}
"""Longest wait in line."""
UNNAMED = "*"
"""Models that have no limit of their own: they share leases. Where a provider takes any name, clients make names up."""


class LeasedQuota:
    """Implements ``ProviderQuota``. ``limits`` by provider, then by model, the provider's own under ``""``.

    ``clock`` gives seconds and never goes back, ``wall`` Unix seconds.
    """

    def __init__(
        self,
        rates: Rates,
        limits: Limits,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        replica_id = new_id("mg")
        self._wall = wall
        self._limits = limits
        self._config: ModelsConfig | None = None
        self._accounts = {
            provider: ProviderAccount(provider, of, rates, metrics, replica_id, clock)
            for provider, of in limits.items()
        }

    @classmethod
    def of(cls, config: ModelsConfig, rates: Rates, metrics: Metrics) -> LeasedQuota | None:
        """Holds the limits of a models file; None where it names none."""
        limits = limits_of(config)
        if not limits:
            return None
        made = cls(rates, limits, metrics)
        made._config = config
        return made

    async def reserve(
        self, endpoint: str, tenant_id: str, tokens: int, priority: Priority, deadline: float
    ) -> Reservation:
        provider, _, model = endpoint.partition("/")
        account = self._accounts.get(provider)
        if account is None or not account.limited(model):
            return NoReservation()
        if model not in self._limits[provider]:
            model = UNNAMED
        wait_s = min(WAIT_S[priority], max(0.0, deadline - self._wall()))
        return await account.reserve(model, tenant_id, max(1, tokens), priority, wait_s)

    @property
    def waiting(self) -> int:
        """Calls of this replica in line for a quota."""
        return sum(account.waiting for account in self._accounts.values())

    def useful_streams(self) -> float | None:
        """How many calls at once the quotas can feed, as far as this replica has seen calls; None: any number."""
        calls = {provider: account.calls() for provider, account in self._accounts.items()}
        return None if self._config is None else useful_streams(self._config, self._limits, calls)

    async def aclose(self) -> None:
        """Gives the leases back; who still waits is refused."""
        for account in self._accounts.values():
            await account.aclose()
