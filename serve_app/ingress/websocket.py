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

from serve_app.domain.identity import Principal
from serve_app.domain.ids import new_id
from serve_app.errors import NotPermitted, ParleyError, QuotaExceeded, Unauthenticated
from serve_app.ingress.chat import ChatService
from serve_app.ingress.limits import ConnectionCount
from serve_app.ingress.origins import origin_allowed
from serve_app.ingress.services import IngressServices
from serve_app.ingress.ws_session import ChatSession
from serve_app.telemetry import logger
from serve_app.wire.problems import encode_problem
from serve_app.wire.ws import ConnectionAck, ErrorFrame, Reconnect

CLOSE_DRAINING = 1012
CLOSE_LIMITS = 1008
CLOSE_INTERNAL = 1011
CLOSE_UNAUTHENTICATED = 4401
CLOSE_NOT_PERMITTED = 4403

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
            principal = (await self._services.authenticator.authenticate(headers, dict(query))).principal
        except ParleyError as error:
            await _deny(scope, send, error)
            return
        await send({"type": "websocket.accept"})
        connection_id = new_id("w_")
        structlog.contextvars.bind_contextvars(connection_id=connection_id)
        if self._drain is not None:
            await _send_away(send)
            return
        user = (principal.tenant_id, principal.user_id)
        if not self._connections.enter(user):
            refusal = QuotaExceeded("You have too many connections open; close one first.")
            await _text(send, ErrorFrame.of(refusal).text())
            await _close(send, CLOSE_LIMITS, "connections")
            return
        try:
            await self._serve(principal, connection_id, scope["state"]["request_id"], receive, send)
        finally:
            self._connections.leave(user)
            self._report()

    async def _serve(
        self, principal: Principal, connection_id: str, request_id: str, receive: Receive, send: Send
    ) -> None:
        begun = time.monotonic()
        session = ChatSession(
            self._chat,
            self._services.settings,
            principal,
            receive,
            send,
            request_id=request_id,
        )
        self._sessions.add(session)
        self._report()
        try:
            await _text(send, ConnectionAck(connection_id=connection_id).text())
            reason = await session.serve()
            if reason is not None:
                await _close(send, CLOSE_LIMITS, reason)
        except OSError:
            pass  # the client went away while something was being sent
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not session.hung_up or task is None or task.uncancel():
                raise  # somebody else's cancellation, or theirs as well
        except Exception:
            _log.exception("socket_failed", user_id=principal.user_id)
            await _close(send, CLOSE_INTERNAL, "internal")
        finally:
            self._sessions.discard(session)
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


async def _deny(scope: Scope, send: Send, error: ParleyError) -> None:
    """Refuses the handshake: as a problem where the server can, else by the close code a client can read."""
    if "websocket.http.response" in scope.get("extensions", {}):
        problem = encode_problem(error, scope["state"]["request_id"])
        for message in problem.messages("websocket.http.response"):
            await send(message)
        return
    await send({"type": "websocket.accept"})
    await _text(send, ErrorFrame.of(error).text())
    code = CLOSE_UNAUTHENTICATED if isinstance(error, Unauthenticated) else CLOSE_NOT_PERMITTED
    await _close(send, code, error.code)
