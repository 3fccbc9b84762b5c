"""Tickets for WebSockets: a browser that cannot send a token with the handshake brings a secret that works once, for 30 seconds.

The secret travels in the address, so it may end up in a log; by then it is worth nothing. The store knows its SHA-256 only. What
the ticket is good for is looked up again when it is used: whoever has lost access meanwhile does not get in by it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time

import msgspec
from msgspec import Struct

from serve_app.domain.access import SYSTEM_TENANT
from serve_app.errors import Conflict, NotFound, Unauthenticated
from serve_app.identity.claims import Clock
from serve_app.identity.port import Authenticator, Grant
from serve_app.storage.expiring import expiring_id, sweep_expired
from serve_app.storage.port import RecordStore

TICKETS_KIND = "ws_ticket"
LIFETIME_S = 30

_TICKET = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_ENCODER = msgspec.json.Encoder()


class Ticket(Struct, frozen=True, kw_only=True):
    """``ticket`` opens one WebSocket within ``expires_in_s``."""

    ticket: str
    expires_in_s: int = LIFETIME_S


class _Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``grant`` until it is used, then by which call. The record goes when its time is over."""

    grant: Grant | None = None
    used_by: str = ""


_KEPT = msgspec.json.Decoder(_Kept)


class WsTickets:
    """Keeps nothing itself: any replica redeems what another has issued."""

    def __init__(self, store: RecordStore, authenticator: Authenticator, clock: Clock = time.time) -> None:
        self._store = store
        self._authenticator = authenticator
        self._clock = clock

    async def issue(self, grant: Grant) -> Ticket:
        now = self._clock()
        until = int(now) + LIFETIME_S
        secret = secrets.token_urlsafe(32)
        await self._store.save_record(
            SYSTEM_TENANT,
            TICKETS_KIND,
            expiring_id(until, _sha256(secret)),
            _ENCODER.encode(_Kept(grant=grant)),
            if_match="",
        )
        await sweep_expired(self._store, TICKETS_KIND, now)
        return Ticket(ticket=f"{until}.{secret}")

    async def redeem(self, ticket: str) -> Grant:
        """The grant it was issued for, as it is now.

        Raises Unauthenticated for a ticket that is unknown, used or expired; NotPermitted where access was lost meanwhile.
        """
        parts = _TICKET.fullmatch(ticket)
        if parts is None or int(parts[1]) <= self._clock():
            raise _refused()
        record_id = expiring_id(int(parts[1]), _sha256(parts[2]))
        try:
            record = await self._store.get_record(SYSTEM_TENANT, TICKETS_KIND, record_id)
            grant = _KEPT.decode(record.body).grant
            if grant is None:
                raise _refused()
            # Marked, not deleted: a store whose delete is tried again after a lost answer cannot say whose delete it was. What
            # is written here only this call can have written.
            used = _ENCODER.encode(_Kept(used_by=secrets.token_hex(16)))
            await self._store.save_record(SYSTEM_TENANT, TICKETS_KIND, record_id, used, if_match=record.etag)
        except (NotFound, Conflict):
            raise _refused() from None
        return await self._authenticator.refresh(grant)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _refused() -> Unauthenticated:
    return Unauthenticated("The ticket is not good: it works once, within 30 seconds.")
