"""What an open socket may do: its grant, kept as it is now, and its end.

opened ─refresh, before each frame that does something and every ``ws_recheck_s``─► as it is now, or lost (4401, 4403)
       ─renew, with another token of the same user─► goes on
       ─expires─► lost (4401)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serve_app.domain.identity import Principal
from serve_app.errors import NotPermitted, ParleyError, Unauthenticated
from serve_app.identity.port import Authenticator, Grant
from serve_app.redaction import hide_here

MAX_TIMER_S = 86_400.0
"""Timers are made for a day at most: one that ends in years would outlast any loop's clock."""


class AccessLostError(Exception):
    """The socket has to be closed. ``error``: what its client is told."""

    def __init__(self, error: ParleyError) -> None:
        super().__init__(error.message)
        self.error = error


class SocketGrant:
    """One socket's. Not for several tasks at once, but for :meth:`adopt`, which changes it in one step."""

    def __init__(
        self,
        authenticator: Authenticator,
        grant: Grant,
        *,
        takes_tokens: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``takes_tokens``: where tokens mean nothing, those that come are left alone."""
        self._authenticator = authenticator
        self._grant = grant
        self._takes_tokens = takes_tokens
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._at_end: Callable[[], None] | None = None

    @property
    def grant(self) -> Grant:
        return self._grant

    @property
    def principal(self) -> Principal:
        return self._grant.principal

    @property
    def expired(self) -> bool:
        expires_at = self._grant.expires_at
        return expires_at is not None and self._clock() >= expires_at

    async def refresh(self) -> None:
        """Brings the grant up to date. Raises AccessLostError; other ParleyErrors where nobody can tell now."""
        if self.expired:
            raise AccessLostError(has_expired())
        try:
            self.adopt(await self._authenticator.refresh(self._grant))
        except (Unauthenticated, NotPermitted) as error:
            raise AccessLostError(error) from None

    async def renew(self, token: str) -> None:
        """Goes on with another token. Raises AccessLostError for one that is no good, or somebody else's."""
        if not self._takes_tokens:
            await self.refresh()
            return
        hide_here((token,))
        try:
            self.adopt(await self._authenticator.with_token(token))
        except (Unauthenticated, NotPermitted) as error:
            raise AccessLostError(error) from None
        if self._at_end is not None:
            self.at_end(self._at_end)

    def adopt(self, grant: Grant) -> None:
        """Takes ``grant`` in the place of this one. Raises AccessLostError for another user's."""
        now, before = grant.principal, self._grant.principal
        if (now.tenant_id, now.user_id) != (before.tenant_id, before.user_id):
            raise AccessLostError(NotPermitted("This connection belongs to another user; open one of your own."))
        self._grant = grant

    def at_end(self, tell: Callable[[], None]) -> None:
        """Has ``tell`` called when the grant expires, in the place of what was asked before."""
        self.close()
        self._at_end = tell
        expires_at = self._grant.expires_at
        if expires_at is not None:
            left_s = min(max(0.0, expires_at - self._clock()), MAX_TIMER_S)
            self._timer = asyncio.get_running_loop().call_later(left_s, self._tell)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._timer = None
        if self._at_end is None:
            return
        if self.expired:
            self._at_end()
        else:  # the clock was set back, or it is further off than a timer reaches
            self.at_end(self._at_end)


def has_expired() -> Unauthenticated:
    return Unauthenticated("Your access has expired; connect again with a new token.")
