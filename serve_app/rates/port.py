"""The service beside the store that provider quotas are counted by, and what replicas of the gateway tell it.

While there is plenty, a replica holds a lease: requests and tokens taken ahead, from which its calls spend without a message.
While there is not, the calls that wait are told here by name, so that all replicas wait in one line: live before batch, each
tenant in its turn, nobody past somebody who needs more.

A minute is a sliding one. What was leased counts from the moment it is given; what of it was spent counts on from when that
was; what was not comes back when its holder says so, or, where it never says anything again, a minute after the lease is over.

Adapters: ``memory`` (one Store replica), ``redis`` (several); both give what ``tests/contract/test_rates.py`` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

LEASE_S = 10.0
"""How long a lease is good, from when it was asked for."""


class Rate(Struct, frozen=True, kw_only=True):
    """Most of a minute; None is any number."""

    requests: int | None = None
    tokens: int | None = None


class Amount(Struct, frozen=True):
    """So many requests and tokens. In a correction either may be negative."""

    requests: int = 0
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.requests + other.requests, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.requests - other.requests, self.tokens - other.tokens)


NOTHING = Amount()


class Spent(Struct, frozen=True, kw_only=True):
    """What calls of a model spent of a lease, and corrections of what they were taken to spend, ``age_s`` ago."""

    model: str
    age_s: float
    amount: Amount


class Waiter(Struct, frozen=True, kw_only=True):
    """A call in line. ``ticket`` is its replica's name for it, ``age_s`` how long it has waited."""

    ticket: int
    tenant_id: str
    model: str
    tokens: int
    live: bool
    age_s: float


class Ask(Struct, frozen=True, kw_only=True):
    """What a replica tells of one provider, and wants. ``number`` counts its asks; one that is repeated is told once.

    ``book`` is the one it knows, or nothing at first; one that has been replaced by another takes no report, as it is to hear of
    the whole last minute. ``alone``: it could not ask for a while, nor perhaps could others, of whose use meanwhile nobody has
    told yet. ``limits`` by model, the provider's own under ``""``. ``kept``: what is left of the lease and is to be good for
    longer; what was neither spent nor is kept goes back. ``wanted``: what it would like ahead, by model. ``waiting``: all that
    is in line.
    """

    provider: str
    replica_id: str
    number: int
    limits: Mapping[str, Rate]
    book: str = ""
    alone: bool = False
    spent: tuple[Spent, ...] = ()
    kept: Mapping[str, Amount] = {}
    wanted: Mapping[str, Amount] = {}
    waiting: tuple[Waiter, ...] = ()


class Answer(Struct, frozen=True, kw_only=True):
    """``granted``: tickets of calls that may be made now, beside any lease. ``ahead``: added to the lease, by model.

    ``retry_after_s``: when there may be room for who still waits. ``replicas`` hold or ask for something. Where ``book`` is
    another than before, the service has begun anew and knows nothing of the last minute.
    """

    book: str
    granted: tuple[int, ...] = ()
    ahead: Mapping[str, Amount] = {}
    retry_after_s: float = 0.0
    replicas: int = 1


class Level(Struct, frozen=True, kw_only=True):
    """How far a limit is used. ``endpoint``: ``provider`` or ``provider/model``; ``kind``: ``requests`` or ``tokens``."""

    endpoint: str
    kind: str
    limit: int
    used: int


class Rates(Protocol):
    async def ask(self, ask: Ask) -> Answer:
        """Takes the report, and gives what there is. Raises StageUnavailable while nobody can count."""


class RateService(Rates, Protocol):
    """What the Store stage opens."""

    def levels(self) -> list[Level]:
        """How far the limits this replica was asked about are used now; for metrics."""

    async def close(self) -> None:
        """Lets go of connections."""
