"""Looks up, every so often, whether the users of open sockets still have access: a quiet socket says nothing by itself."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection

from serve_app.domain.identity import Identity
from serve_app.errors import NotPermitted, ParleyError, Unauthenticated
from serve_app.identity.port import Authenticator
from serve_app.ingress.ws_grant import AccessLostError
from serve_app.ingress.ws_session import ChatSession
from serve_app.telemetry import logger

AT_ONCE = 8
"""Users looked up at a time."""

_log = logger("ingress.websocket")


class Recheck:
    """One task per replica, while there are sockets with an identity behind them."""

    def __init__(
        self, authenticator: Authenticator, sessions: Callable[[], Collection[ChatSession]], *, every_s: float
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts looking, where that has not begun."""
        if self._task is None or self._task.done():
            # A context of its own: the request that has opened the socket ends, and tasks of it would be cancelled.
            self._task = asyncio.create_task(self._look_again(), context=contextvars.Context())

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look_again(self) -> None:
        while self._sessions():
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception:
                _log.exception("recheck_failed")

    async def look(self) -> None:
        """Looks at every open socket once; sockets of one token together."""
        by_identity: dict[Identity, list[ChatSession]] = {}
        for session in self._sessions():
            if (identity := session.grant.grant.identity) is not None:
                by_identity.setdefault(identity, []).append(session)
        seats = asyncio.Semaphore(AT_ONCE)

        async def look_at(identity: Identity, sessions: list[ChatSession]) -> None:
            async with seats:
                await self._look_at(identity, sessions)

        await asyncio.gather(*(look_at(*each) for each in by_identity.items()))

    async def _look_at(self, identity: Identity, sessions: list[ChatSession]) -> None:
        def still_on_it() -> list[ChatSession]:
            # One may have brought another token meanwhile; what is found of the earlier one says nothing of it.
            return [session for session in sessions if session.grant.grant.identity == identity]

        if not (waiting := still_on_it()):
            return
        try:
            grant = await self._authenticator.refresh(waiting[0].grant.grant)
        except (Unauthenticated, NotPermitted) as error:
            await asyncio.gather(*(session.dismiss(error) for session in still_on_it()))
            return
        except ParleyError as error:
            _log.warning("recheck_without_answer", reason=error.message)  # until somebody can tell, they stay
            return
        for session in still_on_it():
            try:
                session.grant.adopt(grant)
            except AccessLostError as lost:
                await session.dismiss(lost.error)
