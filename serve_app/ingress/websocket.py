"""``/ws/chat``: opens, limits and closes sockets; what is said on one is ``ws_session``'s.

Written on plain ASGI: every event of a turn passes here, and each layer would cost more than the sending itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from serve_app.domain.ids import new_id
from serve_app.errors import Internal, NotPermitted, Overloaded, ParleyError, QuotaExceeded, Unauthenticated
from serve_app.identity.port import Grant
from serve_app.ingress.addresses import client_address
from serve_app.ingress.chat import ChatService
from serve_app.ingress.limits import ConnectionCount
from serve_app.ingress.origins import origin_allowed
from serve_app.ingress.services import IngressServices
from serve_app.ingress.ws_grant import SocketGrant
from serve_app.ingress.ws_handshake import TICKET, Handshakes, WaitingRoom
from serve_app.ingress.ws_recheck import Recheck
from serve_app.ingress.ws_session import CLOSE_NOT_PERMITTED, CLOSE_UNAUTHENTICATED, ChatSession
from serve_app.telemetry import logger
from serve_app.wire.problems import encode_problem
from serve_app.wire.requests import SessionUpdate
from serve_app.wire.ws import INTERNAL_SENTENCE, ConnectionAck, ErrorFrame, Reconnect

CLOSE_DRAINING = 1012
CLOSE_LIMITS = 1008
CLOSE_INTERNAL = 1011

RECONNECT_MIN_MS = 250
RECONNECT_SPREAD_MS = 750
"""Clients of a draining replica come back spread over this time, not all at once."""
DRAIN_SEND_S = 3.0
"""A client that takes no more until then is hung up on, so that draining is over within 5 s."""

_log = logger("ingress.websocket")


class ChatSocketEndpoint:
    """The ASGI application behind the route. ``drain`` sends everyone away, for good."""

    def __init__(self, services: IngressServices, chat: ChatService) -> None:
        self._services = services
        self._chat = chat
        self._connections = ConnectionCount(services.settings.limits.ws_connections_per_user)
        self._sessions: set[ChatSession] = set()
        self._drain: asyncio.Task[None] | None = None
        settings = services.settings
        self._takes_tokens = settings.auth.mode != "development"
        self._handshakes = Handshakes(services.authenticator, services.tickets, settings)
        self._waiting = WaitingRoom(settings.limits.ws_unauthenticated, settings.limits.ws_unauthenticated_per_address)
        self._recheck = Recheck(
            services.authenticator, lambda: list(self._sessions), every_s=settings.limits.ws_recheck_s
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        query = QueryParams(scope["query_string"])
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            if not origin_allowed(
                headers.get("origin"),
                headers.get("host"),
                scope.get("scheme", "ws"),
                self._services.settings.cors_origins,
            ):
                raise NotPermitted("Pages of this origin may not connect.")
            grant = await self._handshakes.grant_of(headers, query)
            address = client_address(scope, headers, self._services.settings.limits.forwarded_hops)
            if grant is None:
                self._waiting.enter(address)
            else:
                await self._services.requests.spend(grant.principal)
        except Exception as error:
            await _deny(scope, send, _told(error), readable=TICKET in query)
            return
        connection_id = new_id("w_")
        structlog.contextvars.bind_contextvars(connection_id=connection_id)
        try:
            said = await self._greet(grant, connection_id, receive, send)
        except OSError:
            return  # the client went away before it said anything
        finally:
            if grant is None:
                self._waiting.leave(address)
        if said is None:
            return
        grant, opening = said
        user = (grant.principal.tenant_id, grant.principal.user_id)
        if not self._connections.enter(user):
            refusal = QuotaExceeded("You have too many connections open; close one first.")
            with contextlib.suppress(OSError):
                await _text(send, ErrorFrame.of(refusal).text())
            await _close(send, CLOSE_LIMITS, "connections")
            return
        try:
            await self._serve(grant, opening, connection_id, scope["state"]["request_id"], receive, send)
        finally:
            self._connections.leave(user)
            self._report()

    async def _greet(
        self, grant: Grant | None, connection_id: str, receive: Receive, send: Send
    ) -> tuple[Grant, SessionUpdate | None] | None:
        """Accepts a socket: who has opened it, and the frame that has said so; None where it has been closed."""
        await send({"type": "websocket.accept"})
        if self._drain is None:
            if grant is not None:
                return grant, None
            await _text(send, ConnectionAck(connection_id=connection_id).text())
            said = await self._who(receive, send)
            if said is None or self._drain is None:
                return said
        await _send_away(send)
        return None

    async def _who(self, receive: Receive, send: Send) -> tuple[Grant, SessionUpdate] | None:
        """Who has opened a socket without credentials, by its first message; None where it has been closed."""
        try:
            said = await self._handshakes.first_message(receive)
            if said is not None:
                await self._services.requests.spend(said[0].principal)
            return said
        except OSError:
            raise
        except Exception as error:
            refusal = _told(error)
            await _text(send, ErrorFrame.of(refusal).text())
            await _close(send, _close_code(refusal), refusal.code)
            return None

    async def _serve(
        self,
        grant: Grant,
        opening: SessionUpdate | None,
        connection_id: str,
        request_id: str,
        receive: Receive,
        send: Send,
    ) -> None:
        begun = time.monotonic()
        session = ChatSession(
            self._chat,
            self._services.settings,
            SocketGrant(self._services.authenticator, grant, takes_tokens=self._takes_tokens),
            receive,
            send,
            requests=self._services.requests,
            request_id=request_id,
        )
        self._sessions.add(session)
        self._report()
        if grant.identity is not None:
            self._recheck.begin()
        try:
            if opening is None:  # else it has been said before the client was known
                await _text(send, ConnectionAck(connection_id=connection_id).text())
            reason = await session.serve(opening)
            if reason is not None:
                await _close(send, CLOSE_LIMITS, reason)
        except OSError:
            pass  # the client went away while something was being sent
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not session.hung_up or task is None or task.uncancel():
                raise  # somebody else's cancellation, or theirs as well
        except Exception:
            _log.exception("socket_failed", user_id=grant.principal.user_id)
            await _close(send, CLOSE_INTERNAL, "internal")
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._recheck.end()
            await session.aclose()
            _log.info("socket", duration_ms=round((time.monotonic() - begun) * 1000))

    async def drain(self) -> None:
        """Tells every client to reconnect and closes with 1012; later connections meet the same. Turns go on.

        Idempotent: a later call waits for what the first one began.
        """
        if self._drain is None:
            self._drain = asyncio.create_task(self._send_all_away())
        await asyncio.shield(self._drain)

    async def _send_all_away(self) -> None:
        await asyncio.gather(*(self._send_away(session) for session in list(self._sessions)))

    async def _send_away(self, session: ChatSession) -> None:
        try:
            async with asyncio.timeout(DRAIN_SEND_S):
                await session.leave(_reconnect(), CLOSE_DRAINING, "draining")
        except (TimeoutError, OSError):
            _log.info("drain_unheard")
            session.hang_up()
        except Exception:
            _log.exception("drain_failed")
            session.hang_up()

    def _report(self) -> None:
        self._services.metrics.gauge("parley_connections", self._connections.total)


def _reconnect() -> str:
    after_ms = RECONNECT_MIN_MS + random.randrange(RECONNECT_SPREAD_MS)  # noqa: S311 - jitter, not a secret
    return Reconnect(after_ms=after_ms).text()


async def _send_away(send: Send) -> None:
    await _text(send, _reconnect())
    await _close(send, CLOSE_DRAINING, "draining")


async def _text(send: Send, text: str) -> None:
    await send({"type": "websocket.send", "text": text})


async def _close(send: Send, code: int, reason: str) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # it may be closed already
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _deny(scope: Scope, send: Send, error: ParleyError, *, readable: bool) -> None:
    """Refuses the handshake: as a problem where the server can, else by the close code a client can read.

    ``readable``: by the close code in any case, for a browser, which is shown nothing of a refused handshake.
    """
    if not readable and "websocket.http.response" in scope.get("extensions", {}):
        problem = encode_problem(error, scope["state"]["request_id"])
        for message in problem.messages("websocket.http.response"):
            await send(message)
        return
    with contextlib.suppress(OSError):
        await send({"type": "websocket.accept"})
        await _text(send, ErrorFrame.of(error).text())
        await _close(send, _close_code(error), error.code)


def _told(error: Exception) -> ParleyError:
    """What the client is told of a failure; of one that nobody foresaw, only that there was one."""
    if isinstance(error, ParleyError):
        return error
    _log.error("handshake_failed", exc_info=error)
    return Internal(INTERNAL_SENTENCE)


def _close_code(error: ParleyError) -> int:
    """By what a socket that never came to be is closed."""
    match error:
        case Unauthenticated():
            return CLOSE_UNAUTHENTICATED
        case NotPermitted():
            return CLOSE_NOT_PERMITTED
        case QuotaExceeded() | Overloaded():
            return CLOSE_LIMITS
        case _:
            return CLOSE_INTERNAL
