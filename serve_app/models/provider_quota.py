"""How much a provider lets all replicas of the gateway together ask of it in a minute.

A call reserves by estimate before it is made and settles by what it used. The limits are those of ``quota`` in the models
file, of a provider and of one of its models; who waits for them waits here, live before batch, each tenant in its turn.
``leased_quota`` is the one that counts; ``NoProviderQuota`` is for providers that have no limit.
"""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.priority import Priority


class Reservation(Protocol):
    """One request to the provider. Exactly one of the two ends it; the second call of either does nothing."""

    def settle(self, used_tokens: int) -> None:
        """The request was made, and took so many tokens, both ways together, as the provider counted them."""

    def release(self) -> None:
        """The request was never made: nothing of it counts."""


class ProviderQuota(Protocol):
    async def reserve(
        self, endpoint: str, tenant_id: str, tokens: int, priority: Priority, deadline: float
    ) -> Reservation:
        """Room for one request of about so many ``tokens``, prompt and answer together.

        ``endpoint`` is ``provider/model``, both by their names in the models file. Each attempt reserves for itself, as each is
        a request to the provider. A call by a tenant's own key is none of the operator's account: reserve nothing for it.
        Waits in line no longer than until ``deadline`` (Unix seconds). Raises QuotaExceeded with ``retry_after_s`` where
        there will be no room soon enough, or too many wait.
        """


class NoReservation:
    """Nothing was reserved."""

    def settle(self, used_tokens: int) -> None:
        """Nobody counts."""

    def release(self) -> None:
        """Nobody counts."""


class NoProviderQuota:
    """No limit anywhere."""

    async def reserve(
        self,
        endpoint: str,  # noqa: ARG002 - the port's
        tenant_id: str,  # noqa: ARG002
        tokens: int,  # noqa: ARG002
        priority: Priority,  # noqa: ARG002
        deadline: float,  # noqa: ARG002
    ) -> Reservation:
        return _NOTHING


_NOTHING = NoReservation()
