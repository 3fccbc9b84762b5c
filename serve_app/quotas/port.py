"""Quotas: what is counted of users and tenants, and who may have more.

Counted once for all Ingress replicas, in the Store stage: turns as they are accepted and end (``admission``), and requests
by shares that each Ingress replica takes ahead (``shares``), so that neither costs a message of its own.

A rate is a level that falls steadily by a minute's worth a minute; a minute's worth may be used at once. Tokens are those of the
last sixty seconds. What a turn uses is known only afterwards: until then it counts with what the account's turns use.

Adapters: ``memory`` (one Store replica), ``redis`` (several). Both give what ``tests/contract/test_quotas.py`` holds: what
was refused or withdrawn counts for nothing; a turn is closed once; one that nobody tells of any more stops counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from serve_app.domain.identity import Limits


class Account(Struct, frozen=True):
    """Whose use is counted: a user's, or with ``user_id`` None all of a tenant's."""

    tenant_id: str
    user_id: str | None = None


class Opening(Struct, frozen=True, kw_only=True):
    """A turn that asks to be opened. ``max_open``: how many of everybody's may be open with it. ``for_s``: how long it counts
    as open while nobody tells of it. ``instead_of``: an open turn of the same user that is to end for this one, and so does
    not count against it among the concurrent ones.
    """

    turn_id: str
    tenant_id: str
    user_id: str
    user_limits: Limits
    tenant_limits: Limits
    max_open: int
    for_s: float
    instead_of: str = ""


class Sign(Struct, frozen=True, kw_only=True):
    """What a turn is heard of: it is open, for ``for_s`` unless heard of again, or ``closed`` after using ``tokens``."""

    turn_id: str
    tenant_id: str
    user_id: str
    for_s: float = 0.0
    closed: bool = False
    tokens: int = 0


class Want(Struct, frozen=True, kw_only=True):
    """Requests that an Ingress replica takes ahead for an account, and those of its last share that it has not used."""

    account: Account
    per_minute: int
    count: int
    returned: int = 0


class Share(Struct, frozen=True, kw_only=True):
    """How many were given; where none were, after how many seconds there are more."""

    granted: int
    retry_after_s: float = 0.0


class RequestShares(Protocol):
    """What Ingress replicas take their shares from."""

    async def take_requests(self, wants: Sequence[Want]) -> list[Share]:
        """A share for each want, in order."""


class TurnQuotas(Protocol):
    """What admission counts turns by."""

    async def open_turn(self, opening: Opening) -> None:
        """Counts the turn as open, and as one of the minute; one that is open already is neither refused nor counted again.

        Raises QuotaExceeded and Overloaded, with ``retry_after_s``.
        """

    async def withdraw_turn(self, opening: Opening) -> None:
        """Takes an opening back: the turn was not accepted after all."""

    async def tell(self, signs: Sequence[Sign]) -> None:
        """What has become of turns. An open one that was not known is from then on; a closed one that was not is no news."""


class Quotas(RequestShares, TurnQuotas, Protocol):
    """Both."""

    async def close(self) -> None:
        """Lets go of connections."""
