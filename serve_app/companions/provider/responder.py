"""Sends a planned answer over ASGI at its pace, with its failure, until it ends or the client leaves.

Each wake-up writes everything that is due as one body message, so a stream that falls behind catches up in one write.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from starlette.types import Message, Receive, Send

from serve_app.companions.provider.encoding import ChunkEncoder, completion_body, error_frame
from serve_app.companions.provider.failures import (
    Disconnect,
    HttpFailure,
    Malformed,
    ProviderError,
    Stall,
    StreamError,
    Truncate,
)
from serve_app.companions.provider.journal import Entry
from serve_app.companions.provider.planner import Plan

_SLACK_S: Final = 0.0005
_MAX_WRITE_BYTES: Final = 64 * 1024
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class ClientGoneError(Exception):
    """The client closed the connection, or the provider is closing."""


class Presence:
    """Whether the client of one request is still there, and a sleep that ends when it leaves."""

    def __init__(self, receive: Receive) -> None:
        self._loop = asyncio.get_running_loop()
        self._sleeper: asyncio.Future[None] | None = None
        self.gone = False
        self._watch = asyncio.ensure_future(self._until_gone(receive))

    def close(self) -> None:
        """Stop watching."""
        self._watch.cancel()

    def leave(self) -> None:
        """Treat the client as gone."""
        self.gone = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def sleep_until(self, when_s: float) -> None:
        """Sleep until this moment of the loop's clock.

        Raises:
            ClientGoneError: The client left meanwhile or before.
        """
        if not self.gone:
            self._sleeper = self._loop.create_future()
            timer = self._loop.call_at(when_s, self._wake, self._sleeper)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        if self.gone:
            raise ClientGoneError

    @staticmethod
    def _wake(sleeper: asyncio.Future[None]) -> None:
        if not sleeper.done():
            sleeper.set_result(None)

    async def _until_gone(self, receive: Receive) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()
        self.leave()


class Responder:
    """Sends one plan. `entry` is kept up to date for whoever reads the journal."""

    def __init__(
        self, plan: Plan, entry: Entry, usage: dict[str, Any], created: int, chance: random.Random, presence: Presence
    ) -> None:
        self._plan = plan
        self._entry = entry
        self._usage = usage
        self._created = created
        self._chance = chance
        self._presence = presence
        self._loop = asyncio.get_running_loop()

    async def stream(self, send: Send, include_usage: bool) -> None:
        """Send the answer as server-sent events.

        Raises:
            ProviderError: The plan is an HTTP failure, to be sent instead.
            ClientGoneError: The client left before the end.
        """
        plan, failure = self._plan, self._plan.failure
        encoder = ChunkEncoder(self._entry.id, self._entry.model, self._created, include_usage)
        frames = encoder.frames(plan)
        due_s = await self._first_token()
        await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, self._request_id()]})
        position = 0
        pending: list[bytes] = [encoder.opening()]
        # A failure beyond the answer's end happens at its end.
        fails_at = (
            None if failure is None or isinstance(failure, HttpFailure) else min(failure.after_chunks, len(frames))
        )
        while True:
            if position == fails_at:
                await _write(send, pending)
                if not await self._fail_here(send, encoder):
                    return
                fails_at, due_s = None, max(due_s, self._loop.time())
            if position >= len(frames):
                break
            due_s, position = await self._send_due(send, frames, position, fails_at, due_s, pending)
        pending.append(encoder.closing(plan.finish_reason, self._usage if include_usage else None))
        await send({"type": "http.response.body", "body": b"".join(pending), "more_body": False})
        self._finish(plan.finish_reason)

    async def whole(self, send: Send) -> None:
        """Send the answer as one JSON body; see `stream` for what it raises."""
        plan, failure = self._plan, self._plan.failure
        due_s = await self._first_token()
        await self._presence.sleep_until(due_s + len(plan.pieces) * plan.profile.token_ms / 1000)
        if isinstance(failure, Stall):
            await self._presence.sleep_until(self._loop.time() + failure.for_s)
        if isinstance(failure, StreamError):
            raise ProviderError(500, failure.message, code=failure.code)
        reason = None if isinstance(failure, Truncate) else plan.finish_reason
        body = completion_body(self._entry.id, self._entry.model, self._created, plan, self._usage, reason)
        if isinstance(failure, Malformed):
            body = body[: len(body) // 2]
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), self._request_id()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if isinstance(failure, Disconnect):
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            self._finish(None)
            return
        await send({"type": "http.response.body", "body": body, "more_body": False})
        self._finish(reason)

    async def _first_token(self) -> float:
        """Wait out the time to the first token and return its due moment, or fail as planned."""
        due_s = self._loop.time() + self._varied(self._plan.profile.ttft_ms)
        if isinstance(self._plan.failure, HttpFailure):
            raise ProviderError.from_failure(self._plan.failure)
        await self._presence.sleep_until(due_s)
        return due_s

    async def _send_due(
        self,
        send: Send,
        frames: list[Callable[[], bytes] | bytes],
        position: int,
        fails_at: int | None,
        due_s: float,
        pending: list[bytes],
    ) -> tuple[float, int]:
        """Write what is due, then sleep until the next frame is. Returns its due moment and its position."""
        end = len(frames) if fails_at is None else min(fails_at, len(frames))
        token_ms, size = self._plan.profile.token_ms, 0
        horizon_s = self._loop.time() + _SLACK_S
        start = position
        for frame in islice(frames, position, end):
            if due_s > horizon_s or size > _MAX_WRITE_BYTES:
                break
            data = frame if isinstance(frame, bytes) else frame()
            pending.append(data)
            size += len(data)
            position += 1
            if token_ms:
                due_s += self._varied(token_ms)
        # The end comes with the last piece, so it joins that write.
        if position < len(frames) or position == fails_at:
            await _write(send, pending)
        self._entry.chunks_sent += position - start
        if self._presence.gone:
            raise ClientGoneError
        if position < end:
            if due_s > horizon_s:
                await self._presence.sleep_until(due_s)
            else:
                await asyncio.sleep(0)  # an unpaced stream must not keep the others waiting
        return due_s, position

    async def _fail_here(self, send: Send, encoder: ChunkEncoder) -> bool:
        """Do what the plan's failure says at this place; False when the answer ends with it."""
        failure = self._plan.failure
        if isinstance(failure, Stall):
            await self._presence.sleep_until(self._loop.time() + failure.for_s)
            return True
        if isinstance(failure, Malformed):
            await _write(send, [encoder.malformed()])
            return True
        if isinstance(failure, StreamError):
            error = ProviderError(500, failure.message, code=failure.code)
            await send({"type": "http.response.body", "body": error_frame(error.body), "more_body": False})
        elif isinstance(failure, Truncate):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # A disconnect returns without completing the response: the server then closes the connection.
        self._finish(None)
        return False

    def _finish(self, reason: str | None) -> None:
        self._entry.finished = True
        self._entry.finish_reason = reason

    def _request_id(self) -> tuple[bytes, bytes]:
        return b"x-request-id", b"req_" + self._entry.id.encode()

    def _varied(self, time_ms: float) -> float:
        """This many milliseconds, in seconds, with the profile's jitter."""
        jitter = self._plan.profile.jitter
        if jitter:
            time_ms *= 1 + jitter * (2 * self._chance.random() - 1)
        return time_ms / 1000


async def _write(send: Send, pending: list[bytes]) -> None:
    if pending:
        await send({"type": "http.response.body", "body": b"".join(pending), "more_body": True})
        pending.clear()
