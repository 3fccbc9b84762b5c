"""One call whose answer is a stream of events: its deadline, its reads, its end. The same for every provider.

A call has one deadline around everything, a bound on silence between reads, and a bound on the answer's size. Events are found
and decoded once per read. However a call ends, its response is closed before ``run_call`` returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import httpx2

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.errors import DeadlineExceeded
from serve_app.models.assembly import Assembly
from serve_app.models.config import Provider
from serve_app.models.failures import ProviderFailures
from serve_app.models.http_client import TRANSPORT_ERRORS, LetGo, body_reader, holder
from serve_app.models.port import TextSink
from serve_app.models.sse import EventTooLarge, SSEDecoder
from serve_app.models.ticks import Ticks

_USAGE_WAIT_S = 2.0  # for the count of tokens, once the model has ended
_CLOSE_WAIT_S = 0.1  # for the end of the body after the last event, which lets the connection be used again
_WHOLE_BODY_SPARE_BYTES = 65_536


@dataclass(frozen=True)
class Pace:
    """How the answers of one provider are read: at most so much, with silences of at most so long, and how often."""

    max_bytes: int
    stall_timeout_s: float
    ticks: Ticks

    @classmethod
    def of(cls, config: Provider, max_response_bytes: int) -> Pace:
        return cls(max_response_bytes, config.stall_timeout_s, Ticks(config.read_every_ms / 1000))


async def run_call(
    request: ModelRequest,
    model: str,
    assembly: Assembly,
    on_text: TextSink,
    send: Callable[[], Awaitable[httpx2.Response]],
    failures: ProviderFailures,
    pace: Pace,
) -> Generation:
    """Sends the request and reads its answer to the end, as ``ProviderAdapter.generate`` says.

    ``send`` gives an answer whose body is still to be read; it raises the SDK's own errors as ours. From the first piece on it
    is read once for each of the pace's ticks.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    reading = _Reading(assembly, on_text, failures, pace)
    given_s = request.deadline - time.time()
    try:
        async with asyncio.timeout_at(started + given_s) as scope:
            response = await send()
            try:
                await reading.read(response)
            finally:
                await response.aclose()
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"The model {model!r} did not finish within the {max(0.0, given_s):.0f} s it was given."
        ) from None
    reading.hand_on(assembly.end())
    if assembly.failure is not None:
        raise assembly.failure
    first = reading.first_piece_at
    return Generation(
        model_id=model,
        finish_reason=assembly.finish_reason(),
        text=assembly.text,
        tool_calls=assembly.tool_calls(),
        usage=assembly.usage(),
        first_delta_ms=None if first is None else round((first - started) * 1000),
        duration_ms=round((loop.time() - started) * 1000),
    )


def request_headers(request: ModelRequest) -> dict[str, str]:
    """Our name of the request, where it can stand in a header: providers keep it with theirs."""
    name = request.request_id
    return {"x-client-request-id": name} if name.isascii() and name.isprintable() and 0 < len(name) <= 200 else {}


class _Reading:
    """The reads of one answer."""

    __slots__ = ("_assembly", "_failures", "_max_bytes", "_on_text", "_stall_timeout_s", "_ticks", "first_piece_at")

    def __init__(
        self,
        assembly: Assembly,
        on_text: TextSink,
        failures: ProviderFailures,
        pace: Pace,
    ) -> None:
        self._assembly = assembly
        self._on_text = on_text
        self._failures = failures
        self._max_bytes = pace.max_bytes
        self._stall_timeout_s = pace.stall_timeout_s
        self._ticks = pace.ticks
        self.first_piece_at: float | None = None

    def hand_on(self, pieces: list[str]) -> None:
        if not pieces:
            return
        if self.first_piece_at is None:
            self.first_piece_at = asyncio.get_running_loop().time()
        self._on_text(pieces)

    async def read(self, response: httpx2.Response) -> None:
        """Reads to the end of the body, or of the time allowed for what comes after the model's last word."""
        try:
            async with asyncio.timeout(None) as patience:
                silence = _Silence(self._stall_timeout_s, patience)
                try:
                    await self._read(_reader(response), holder(response), patience, silence)
                finally:
                    silence.forget()
        except TRANSPORT_ERRORS as error:
            # Once the model has ended, only the count of tokens is lost.
            if not self._assembly.finished:
                raise self._failures.of(error) from error
        except EventTooLarge:
            raise self._failures.too_large(f"{self._max_bytes} bytes in one piece") from None

    async def _read(
        self,
        next_read: Callable[[], Awaitable[bytes]],
        hold: Callable[[], LetGo],
        patience: asyncio.Timeout,
        silence: _Silence,
    ) -> None:
        assembly = self._assembly
        now = asyncio.get_running_loop().time
        decoder = SSEDecoder(self._max_bytes)
        read = await _first_bytes(next_read)
        if read[:1] in (b"{", b"["):
            self.hand_on(assembly.add_completion(await self._rest(read, next_read, silence)))
            return
        if read[:1] == b"<":
            raise self._failures.not_a_stream()
        done = False
        while read:
            silence.broken_at = now()
            if not done and (events := decoder.feed(read)):
                self.hand_on(assembly.add(events))
                if assembly.failure is not None:
                    return
                done = assembly.done
                if done:
                    patience.reschedule(now() + _CLOSE_WAIT_S)
                elif assembly.finished:
                    patience.reschedule(now() + _USAGE_WAIT_S)
                elif self.first_piece_at is not None:
                    let_go = hold()
                    try:
                        await self._ticks.next()
                    finally:
                        let_go()
            read = await next_read()
        if not done:
            self.hand_on(assembly.add(decoder.flush()))

    async def _rest(self, first: bytes, next_read: Callable[[], Awaitable[bytes]], silence: _Silence) -> bytes:
        body = bytearray(first)
        while read := await next_read():
            silence.broken_at = asyncio.get_running_loop().time()
            body += read
            if len(body) > 2 * self._max_bytes + _WHOLE_BODY_SPARE_BYTES:
                raise self._failures.too_large(f"{self._max_bytes} bytes")
        return bytes(body)


class _Silence:
    """Ends a wait for the next read that takes too long.

    A timer that were set anew with each read would cost as much as decoding it: this one looks, when it is due, at when the
    last read was, and sets itself for the rest.
    """

    __slots__ = ("_handle", "_limit_s", "_loop", "_patience", "broken_at")

    def __init__(self, limit_s: float, patience: asyncio.Timeout) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._patience = patience
        self.broken_at = self._loop.time()
        self._handle = self._loop.call_later(limit_s, self._look)

    def forget(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        rest_s = self.broken_at + self._limit_s - now
        if rest_s > 0:
            self._handle = self._loop.call_later(rest_s, self._look)
        else:
            self._patience.reschedule(now)


def _reader(response: httpx2.Response) -> Callable[[], Awaitable[bytes]]:
    """Gives the next bytes there are each time it is called, and none at the end."""
    reader = body_reader(response)
    if reader is not None:
        return reader.readany
    return partial(anext, response.aiter_bytes(), b"")


async def _first_bytes(next_read: Callable[[], Awaitable[bytes]]) -> bytes:
    """The first read that is not only white space: its first byte tells events, JSON and a web page apart."""
    while read := await next_read():
        if read := read.lstrip():
            return read
    return b""
