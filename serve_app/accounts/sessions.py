"""Sessions of local accounts: kept up by refresh tokens, each good once.

A token is ``<session>.<generation>.<mac>``: whether we ever made it is known without asking the store, and what a session's next
token is can be computed again. So a client whose answer was lost, or whose other tabs were quicker, gets the same answer for a
moment, in which there is no further token. Later, a token that has been used ends its session: it is in two hands, and one of
them stole it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from serve_app.accounts.ledger import Ledger, Seen
from serve_app.accounts.port import Tokens
from serve_app.accounts.records import Account, Session
from serve_app.accounts.signing import SigningKeys
from serve_app.errors import Conflict, Overloaded, Unauthenticated
from serve_app.identity.claims import Clock
from serve_app.storage.expiring import EXPIRING_ID, expiring_id
from serve_app.telemetry import logger

REPEAT_S = 30.0
"""How long a token that has been used gets the same answer again, and its successor itself, so that nothing a browser's many
tabs sent at once is two steps behind. Longer than a page waits for an answer."""
ATTEMPTS = 4
MAX_REFRESH_CHARS = 256

_REFRESH = re.compile(rf"({EXPIRING_ID.pattern})\.([0-9]{{1,9}})\.([A-Za-z0-9_-]{{43}})")

log = logger("accounts")


class TokenTerms(Struct, frozen=True, kw_only=True):
    """What access tokens say, and for how long they and their sessions are good."""

    issuer: str
    audience: str
    tenant_claim: str
    access_token_s: int
    session_s: int


class Sessions:
    def __init__(self, ledger: Ledger, keys: SigningKeys, terms: TokenTerms, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._terms = terms
        self._clock = clock
        self._mac_keys = keys.derived("refresh tokens")

    async def begin(self, account: Account, until: float) -> Tokens:
        """``until``: when it ends, should that be sooner than sessions do."""
        now = self._clock()
        ends_at = min(until, now + self._terms.session_s)
        session = Session(login=account.login, epoch=account.epoch, expires_at=ends_at, rotated_at=now)
        session_id = expiring_id(session.expires_at)
        await self._ledger.save_session(session_id, session, "")
        await self._ledger.sweep_sessions(now)
        return self._tokens(account, session_id, session)

    async def go_on(self, refresh_token: str) -> Tokens:
        """The next pair. Raises Unauthenticated."""
        session_id, generation = self._opened(refresh_token)
        for _ in range(ATTEMPTS):
            seen = await self._ledger.find_session(session_id)
            account = None if seen is None else await self._ledger.find_account(seen.value.login)
            if seen is None or account is None or not self._holds(seen.value, account.value):
                raise _over()
            session = seen.value
            recent = self._clock() - session.rotated_at <= REPEAT_S
            if generation == session.generation:
                if generation > 0 and recent:
                    return self._tokens(account.value, session_id, session)
                try:
                    session = await self._rotate(session_id, seen)
                except Conflict:
                    continue  # the same token, this moment
            elif generation != session.generation - 1 or not recent:
                log.warning("refresh_token_reused", user_id=account.value.user_id, tenant_id=account.value.tenant_id)
                await self._ledger.delete_session(session_id)
                raise _over()
            return self._tokens(account.value, session_id, session)
        raise Overloaded("This session is being refreshed by too many at once.", None, 1.0)

    async def end(self, refresh_token: str) -> None:
        try:
            session_id, _ = self._opened(refresh_token)
        except Unauthenticated:
            return
        await self._ledger.delete_session(session_id)

    async def _rotate(self, session_id: str, seen: Seen[Session]) -> Session:
        rotated = replace(seen.value, generation=seen.value.generation + 1, rotated_at=self._clock())
        await self._ledger.save_session(session_id, rotated, seen.etag)
        return rotated

    def _holds(self, session: Session, account: Account) -> bool:
        return session.epoch == account.epoch and self._clock() < session.expires_at

    def _tokens(self, account: Account, session_id: str, session: Session) -> Tokens:
        now = self._clock()
        return Tokens(
            access_token=self._keys.sign(self._claims(account, int(now))),
            refresh_token=self._refresh_token(session_id, session.generation),
            expires_in_s=self._terms.access_token_s,
            session_ends_in_s=max(0, int(session.expires_at - now)),
        )

    def _claims(self, account: Account, now: int) -> Mapping[str, Any]:
        return {
            "iss": self._terms.issuer,
            "aud": self._terms.audience,
            "sub": account.user_id,
            self._terms.tenant_claim: account.tenant_id,
            "iat": now,
            "exp": now + self._terms.access_token_s,
            "jti": secrets.token_urlsafe(16),
        }

    def _refresh_token(self, session_id: str, generation: int) -> str:
        named = f"{session_id}.{generation}"
        return f"{named}.{_mac(self._mac_keys[0], named)}"

    def _opened(self, refresh_token: str) -> tuple[str, int]:
        """Session and generation of a token that we made. Raises Unauthenticated."""
        parts = _REFRESH.fullmatch(refresh_token) if len(refresh_token) <= MAX_REFRESH_CHARS else None
        if parts is None:
            raise _over()
        session_id, generation, mac = parts[1], parts[3], parts[4]
        named = f"{session_id}.{generation}"
        if not any(hmac.compare_digest(_mac(key, named), mac) for key in self._mac_keys):
            raise _over()
        return session_id, int(generation)


def _mac(key: bytes, named: str) -> str:
    return urlsafe_b64encode(hmac.digest(key, named.encode(), hashlib.sha256)).rstrip(b"=").decode()


def _over() -> Unauthenticated:
    return Unauthenticated("The session is over; log in again.")
