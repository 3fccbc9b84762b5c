"""One conversation on ``/ws/chat`` as a client sees it: ask, read what comes, cancel; dropped connections mended in between.

A query carries a ``client_turn_id``, so sending it again never starts a second turn. Events are counted by ``seq``: after
a drop the turn is resumed behind the last one seen, and what comes twice is passed over. Whoever reads gets each event of
a turn once and in order, whatever happened to the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from serve_app.cli.api import Caller, not_there
from serve_app.errors import DeadlineExceeded, ParleyError, UpstreamFailed

Event = dict[str, Any]
"""An event of a turn as the protocol has it."""

TERMINAL = frozenset({"chat_response", "turn.failed", "turn.cancelled"})
GATHER_S = 0.02
"""Events that follow one another this closely are handed over together, so that a screen is drawn once for them."""
OPEN_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 20.0
RECONNECT_FOR_S = 60.0
"""How long a server may be away in mid-answer before the answer is given up; the turn itself goes on there."""
RECONNECT_MIN_S = 0.25
RECONNECT_MAX_S = 5.0
MAX_RESUMES = 20
MAX_REFUSALS = 4
"""How often a query is sent again that the server could not take just then."""
KEEPALIVE_S = 10.0
"""A connection that is dead without being closed, as after a sleep, is found within twice this time."""
MAX_FRAME_BYTES = 16_777_216


class Session(Struct, frozen=True, kw_only=True):
    """What the server said when the conversation was opened."""

    session_id: str
    user_id: str
    roles: tuple[str, ...]
    tools: tuple[str, ...]
    active_turn_id: str | None = None


class Reconnecting(Exception):
    """The connection is gone; try again after ``after_s``."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class TurnStream:
    """A conversation with the server at ``url`` as ``caller``. For one reader at a time; ``cancel`` may come beside it."""

    def __init__(
        self, url: str, caller: Caller, session_id: str | None = None, *, reconnect_for_s: float = RECONNECT_FOR_S
    ) -> None:
        self._url = url
        self._reconnect_for_s = reconnect_for_s
        self._headers = caller.headers()
        self._session_id = session_id
        self._socket: ClientConnection | None = None
        self._client_turn_id: str | None = None
        self._turn_id: str | None = None
        self._last_seq = 0
        self._cancel_wanted = False
        self._cancel_sent = False
        self._answers: dict[str, bool] = {}
        self._answers_sent: set[str] = set()
        self._resting: asyncio.Task[None] | None = None
        self.title: str | None = None
        """The conversation's title, as far as the server has told."""

    @property
    def session_id(self) -> str | None:
        """The conversation; None before ``open`` where none was asked for."""
        return self._session_id

    async def open(self) -> Session:
        """Connects and opens the conversation, a new one where there is none yet.

        Raises UpstreamFailed when no Parley answers, ParleyError for what the server refuses.
        """
        await self._wake()
        try:
            return await self._open()
        except Reconnecting as gone:
            raise UpstreamFailed(
                f"Parley at {self._url} ended the connection at once; try again in a moment, or see `parley doctor`."
            ) from gone

    async def _open(self) -> Session:
        await self._drop()
        try:
            self._socket = await connect(
                _socket_url(self._url),
                additional_headers=self._headers,
                open_timeout=OPEN_TIMEOUT_S,
                max_size=MAX_FRAME_BYTES,
                ping_interval=KEEPALIVE_S,
                ping_timeout=KEEPALIVE_S,
                proxy=None if _is_loopback(self._url) else True,
            )
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise _refused(self._url, error) from error
        self._cancel_sent = False
        self._answers_sent.clear()
        await self._send({"type": "session.update"} | ({"session_id": self._session_id} if self._session_id else {}))
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                while (frame := await self._receive(opening=True))["type"] != "session.created":
                    pass
        except TimeoutError:
            raise DeadlineExceeded("The server took the connection but does not answer; see `parley doctor`.") from None
        self._session_id = str(frame["session_id"])
        active = frame.get("active_turn") or {}
        return Session(
            session_id=self._session_id,
            user_id=str(frame.get("user_id", "")),
            roles=tuple(frame.get("roles") or ()),
            tools=tuple(frame.get("tools") or ()),
            active_turn_id=active.get("turn_id"),
        )

    async def new(self) -> Session:
        """Leaves the conversation for a new one."""
        self._session_id = None
        self.title = None
        return await self.open()

    async def ask(self, content: str, model_id: str | None = None) -> AsyncIterator[list[Event]]:
        """Sends a query and gives the turn's events in batches; the last event is a terminal one.

        Raises ParleyError when the turn cannot be had: it is refused, or the server stays away.
        """
        self._begin(client_turn_id=str(uuid4()))
        query: dict[str, Any] = {"type": "query", "content": content, "client_turn_id": self._client_turn_id}
        if model_id is not None:
            query["model_id"] = model_id
        async for batch in self._turn(query):
            yield batch

    async def follow(self, turn_id: str) -> AsyncIterator[list[Event]]:
        """A running turn from its beginning; otherwise as ``ask``."""
        self._begin(turn_id=turn_id)
        async for batch in self._turn(None):
            yield batch

    async def cancel(self) -> None:
        """Asks the server to stop the turn that is being read, as soon as it can be asked. Its terminal event still comes."""
        self._cancel_wanted = True
        with contextlib.suppress(Reconnecting, ParleyError):
            await self._pass_cancel_on()

    async def answer(self, approval_id: str, approved: bool) -> None:
        """Answers a question of the turn that is being read, as soon as the server can be told; on every line anew."""
        self._answers[approval_id] = approved
        with contextlib.suppress(Reconnecting, ParleyError):
            await self._pass_answers_on()

    async def rest(self) -> None:
        """From now until the next call here, takes what comes between turns: titles, above all."""
        await self._wake()
        self._resting = asyncio.create_task(self._rest())

    async def aclose(self) -> None:
        """Leaves. A running turn goes on."""
        await self._wake()
        await self._drop()

    async def _rest(self) -> None:
        with contextlib.suppress(Reconnecting, ParleyError):
            while True:
                await self._receive()

    async def _wake(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:  # one reader at a time
            resting.cancel()
            await asyncio.gather(resting, return_exceptions=True)

    def _begin(self, client_turn_id: str | None = None, turn_id: str | None = None) -> None:
        self._client_turn_id, self._turn_id, self._last_seq = client_turn_id, turn_id, 0
        self._cancel_wanted = self._cancel_sent = False
        self._answers.clear()

    async def _turn(self, query: dict[str, Any] | None) -> AsyncIterator[list[Event]]:
        await self._wake()
        in_vain = 0  # attempts that brought no event
        refused = 0
        while in_vain < MAX_RESUMES:
            try:
                if self._socket is None:
                    await self._reopen()
                if self._turn_id is not None:
                    await self._send({"type": "resume", "turn_id": self._turn_id, "after_seq": self._last_seq})
                elif query is not None:
                    await self._send(query)
                while True:
                    await self._pass_cancel_on()
                    await self._pass_answers_on()
                    batch, failure = await self._batch()
                    if batch:
                        in_vain = 0
                        yield batch
                        if batch[-1]["type"] in TERMINAL:
                            return
                    if failure is not None:
                        raise failure
            except Reconnecting as gone:
                await self._drop()
                pause_s = gone.after_s
            except _Told as told:
                # A query comes again under its own id, so that one which was accepted all the same makes no second turn.
                refused += self._turn_id is None
                if not told.retryable or refused > MAX_REFUSALS:
                    raise
                pause_s = RECONNECT_MIN_S
            if in_vain:
                pause_s = max(pause_s, min(RECONNECT_MIN_S * 2**in_vain, RECONNECT_MAX_S))
            in_vain += 1
            await asyncio.sleep(pause_s)
        raise UpstreamFailed("The connection kept dropping; the answer goes on at the server, come back to it later.")

    async def _pass_cancel_on(self) -> None:
        if self._cancel_wanted and not self._cancel_sent and self._turn_id is not None:
            self._cancel_sent = True
            await self._send({"type": "cancel", "turn_id": self._turn_id})

    async def _pass_answers_on(self) -> None:
        for approval_id in [one for one in self._answers if one not in self._answers_sent]:
            self._answers_sent.add(approval_id)
            await self._send({"type": "approval", "approval_id": approval_id, "approved": self._answers[approval_id]})

    async def _reopen(self) -> None:
        """Opens the conversation again, as often as it takes within ``reconnect_for_s``."""
        clock = asyncio.get_running_loop().time
        until, pause_s = clock() + self._reconnect_for_s, RECONNECT_MIN_S
        while True:
            try:
                await self._open()
            except (UpstreamFailed, DeadlineExceeded, Reconnecting, _Told) as error:
                if isinstance(error, _Told) and not error.retryable:
                    raise
                if clock() + pause_s > until:
                    raise error if isinstance(error, ParleyError) else UpstreamFailed(str(error)) from error
                await self._drop()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)
            else:
                return

    async def _batch(self) -> tuple[list[Event], Exception | None]:
        """The turn's next events, at least one, and what ended the reading after them if something did."""
        batch: list[Event] = []
        try:
            self._take(await self._receive(), batch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    while not (batch and batch[-1]["type"] in TERMINAL):
                        self._take(await self._receive(), batch)
        except (Reconnecting, ParleyError) as error:
            return batch, error
        return batch, None

    def _take(self, frame: Event, batch: list[Event]) -> None:
        """Keeps ``frame`` if it is the turn's next event. Raises Reconnecting where events are missing in between."""
        seq, turn_id = frame.get("seq"), frame.get("turn_id")
        if not isinstance(seq, int) or not isinstance(turn_id, str):
            return
        if self._turn_id is None and frame.get("client_turn_id") == self._client_turn_id is not None:
            self._turn_id = turn_id
        if turn_id != self._turn_id or seq <= self._last_seq:
            return
        if seq != self._last_seq + 1:
            raise Reconnecting("events are missing")
        self._last_seq = seq
        batch.append(frame)

    async def _receive(self, *, opening: bool = False) -> Event:
        """The next frame that is for the reader. Raises Reconnecting when the connection ends, ParleyError for ``error``."""
        while True:
            socket = self._socket
            if socket is None:
                raise Reconnecting("not connected")
            try:
                frame = json.loads(await socket.recv())
            except ConnectionClosed as closed:
                raise _ended(closed) from closed
            except ValueError as error:
                raise UpstreamFailed("The server sent something that is not JSON; is it a Parley?") from error
            if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
                raise UpstreamFailed("The server sent something that is not of Parley's protocol.")
            match frame["type"]:
                case "title" if frame.get("session_id") in {None, self._session_id}:
                    self.title = str(frame.get("title") or "")
                case "reconnect":
                    raise Reconnecting("the server asks for it", float(frame.get("after_ms") or 0) / 1000)
                case "error" if self._concerns_reader(frame.get("turn_id"), opening):
                    raise _told(frame)
                case _:
                    return frame

    def _concerns_reader(self, turn_id: str | None, opening: bool) -> bool:
        """Whether an ``error`` ends the reading: one about this turn does, one about no turn only before there is one."""
        return turn_id == self._turn_id or (turn_id is None and opening)

    async def _send(self, frame: dict[str, Any]) -> None:
        if self._socket is None:
            raise Reconnecting("not connected")
        try:
            await self._socket.send(json.dumps(frame))
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await socket.close()


class _Told(ParleyError):
    """What the server said in an ``error`` frame, or as it refused the connection."""

    code = "refused"


def _told(frame: Event) -> _Told:
    return _Told(str(frame.get("message") or "The server refused this."), bool(frame.get("retryable")))


def _ended(closed: ConnectionClosed) -> Exception:
    code = closed.rcvd.code if closed.rcvd is not None else 1006
    reason = closed.rcvd.reason if closed.rcvd is not None else ""
    if code in {1008, 4401, 4403}:  # coming back would end the same way
        return UpstreamFailed(f"The server closed the connection ({code}{f': {reason}' if reason else ''}).")
    return Reconnecting(f"closed with {code}")


def _socket_url(url: str) -> str:
    return f"ws{url.removeprefix('http')}/ws/chat"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _refused(url: str, error: Exception) -> ParleyError:
    if not isinstance(error, InvalidStatus):
        return not_there(url, error)
    status = error.response.status_code
    try:
        problem = json.loads(error.response.body or b"")
        detail, retryable = str(problem["detail"]), bool(problem.get("retryable"))
    except (ValueError, KeyError, TypeError):
        detail, retryable = "", False
    if detail:
        return _Told(detail, retryable)
    if status in {502, 503, 504}:
        return UpstreamFailed(
            f"Parley at {url} is not ready ({status}); try again in a moment, or see `parley doctor`."
        )
    return UpstreamFailed(
        f"What answers at {url} offers no /ws/chat (it said {status}); name Parley's address with --url."
    )
