"""The channel between processes, over ZeroMQ.

Each process listens on one socket, on a port of its own choice, and opens one connection to each peer it sends to, when
it first does; answers come back over the peer's own connection. Sockets are plain ones watched by the event loop, and
all work is done in its callbacks: no task and no thread of ours for receiving, and no timer while nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import secrets
from dataclasses import dataclass

import zmq

from serve_app.channel.connection import (
    HANDSHAKE_TIMEOUT_MS,
    HEARTBEAT_MS,
    HEARTBEAT_TIMEOUT_MS,
    Connection,
)
from serve_app.channel.curve import ChannelKeys, Gatekeeper
from serve_app.channel.frames import FRAME_OVERHEAD_BYTES, Answer, Call, FrameError, decode, failure_of
from serve_app.channel.inbox import Inboxes, StreamInbox
from serve_app.channel.port import Address, ChannelCounts, Handler, Lost, Sink
from serve_app.channel.requests import MAX_CALLS, Answering, Waiting
from serve_app.channel.sockets import Context, readable, watch
from serve_app.channel.watches import Watches
from serve_app.errors import ConfigError, StageUnavailable
from serve_app.settings import ChannelSettings
from serve_app.telemetry import logger

_FRAMES_PER_WAKE = 64
_GONE = Answer(failure=failure_of(StageUnavailable("The process that was asked is gone.")))
_STOP_S = 0.8
_WILDCARDS = frozenset({"*", "0.0.0.0", "::"})  # noqa: S104 - refused, not used


@dataclass(frozen=True)
class ZeromqBounds:
    """Bounds that nobody should have to set."""

    connections: int = 1_024
    idle_s: float = 120.0
    """A connection unused for so long is closed."""
    lost_s: float = 0.5
    """How long a peer counts as gone after its connection broke, before a new one is tried."""
    calls: int = MAX_CALLS


class ZeromqChannel:
    """See ``Channel``. Raises ConfigError for a secret or an address that cannot work."""

    def __init__(self, settings: ChannelSettings, secret: str, bounds: ZeromqBounds | None = None) -> None:
        if settings.bind_host in _WILDCARDS and settings.advertise_host is None:
            raise ConfigError(
                "Setting PARLEY_CHANNEL__ADVERTISE_HOST must name the address other replicas reach this one at, "
                f"because PARLEY_CHANNEL__BIND_HOST is {settings.bind_host}."
            )
        self.counts = ChannelCounts()
        self._settings = settings
        self._bounds = bounds or ZeromqBounds()
        self._keys = ChannelKeys.derive(secret)
        self._inboxes = Inboxes(self.counts)
        self._answering = Answering(settings.max_frame_bytes - FRAME_OVERHEAD_BYTES, self._bounds.calls)
        self._connections: dict[str, Connection] = {}
        self._watches = Watches()
        self._detached = contextvars.Context()
        self._instance = ""
        self._endpoint = ""
        self._running = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._log = logger("channel")

    @property
    def endpoint(self) -> str:
        if not self._endpoint:
            raise RuntimeError("the channel has not been started")
        return self._endpoint

    async def start(self) -> None:
        if self._endpoint:
            raise RuntimeError("a channel is started once")
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(self._loop, self._detached)
        self._context: Context = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, self._keys, self.counts)
        self._listener = self._context.socket(zmq.PULL)
        host = self._settings.bind_host
        self._keys.listener(self._listener)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, self._settings.high_water_frames),
            (zmq.MAXMSGSIZE, self._settings.max_frame_bytes + FRAME_OVERHEAD_BYTES),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.IPV6, int(":" in host)),
        ):
            self._listener.setsockopt(option, value)
        try:
            self._listener.bind(f"tcp://{_bracketed(host)}:*")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"Setting PARLEY_CHANNEL__BIND_HOST is {host!r}, which cannot be bound: {error}."
            ) from error
        port = self._listener.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
        self._instance = secrets.token_hex(4)
        self._endpoint = f"tcp://{_bracketed(self._settings.advertise_host or host)}:{port}/{self._instance}"
        self._running = True
        watch(self._loop, self._gatekeeper.socket, self._on_gate)
        watch(self._loop, self._listener, self._on_readable)

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        self._waiting.lost()
        self._inboxes.end_all()
        await self._answering.stop(_STOP_S / 2)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        for socket in (self._listener, self._gatekeeper.socket):
            self._loop.remove_reader(socket.fileno())
            socket.close(0)
        # Returns as soon as libzmq's own thread has let go of the sockets, which would otherwise hold up the loop.
        try:
            async with asyncio.timeout(_STOP_S / 2):
                await self._loop.run_in_executor(None, self._context.term)
        except TimeoutError:
            self._log.warning("the channel's sockets are slow to close")

    def open(self, *, max_items: int = 10_000, sink: Sink | None = None) -> StreamInbox:
        return self._inboxes.open(self.endpoint, max_items, sink)

    def handle(self, name: str, handler: Handler) -> None:
        self._answering.handle(name, handler)

    def watch(self, endpoint: str, lost: Lost) -> Lost:
        connection = self._connections.get(endpoint)
        if connection is None or connection.lost_at is not None:
            lost()
            return lambda: None
        return self._watches.add(endpoint, lost)

    def send(self, to: Address, items: list[bytes]) -> None:
        if not items:
            return
        connection = self._connections.get(to.endpoint)
        if connection is None or connection.lost_at is not None:
            connection = self._connect(to.endpoint)
            if connection is None:
                self.counts.items_dropped += len(items)
                return
        connection.send(to.stream, items)

    async def request(self, endpoint: str, name: str, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        connection = self._connect(endpoint)
        if connection is None:
            raise StageUnavailable("The process that was asked is gone.")
        within_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        call = Call(name, payload, int(within_s * 1000))
        number = 0

        def submit(chosen: int) -> None:
            nonlocal number
            number = chosen
            connection.call(number, call)

        try:
            return await self._waiting.request(endpoint, within_s, submit)
        finally:
            connection.withdraw(number)

    def _connect(self, endpoint: str) -> Connection | None:
        """The connection to a peer, new where there is none. None while the peer counts as gone."""
        known = self._connections.get(endpoint)
        if known is not None:
            if known.lost_at is None:
                return known
            if self._loop.time() - known.lost_at < self._bounds.lost_s:
                return None
            del self._connections[endpoint]
        if not self._running or not endpoint.startswith("tcp://") or not self._has_room():
            return None
        try:
            connection = Connection(
                self._context,
                self._keys,
                self._settings,
                endpoint,
                self._endpoint,
                self.counts,
                self._on_lost,
                self._detached,
            )
        except zmq.ZMQError as error:
            self._log.warning("a peer's address cannot be used", endpoint=endpoint, reason=str(error))
            return None
        self._connections[endpoint] = connection
        if self._sweeper is None:
            self._sweep_later()
        return connection

    def _has_room(self) -> bool:
        """Makes room among the connections where there is none, at the expense of the one unused for longest."""
        if len(self._connections) < self._bounds.connections:
            return True
        oldest = min(
            self._connections.values(), key=lambda connection: (self._in_use(connection), connection.flushed_at)
        )
        if self._in_use(oldest):
            self._log.warning("too many peers at a time", connections=len(self._connections))
            return False
        del self._connections[oldest.endpoint]
        oldest.close()
        return True

    def _sweep_later(self) -> None:
        self._sweeper = self._loop.call_later(self._bounds.idle_s / 2, self._sweep, context=self._detached)

    def _sweep(self) -> None:
        """Closes idle connections; runs only while there are any."""
        since = self._loop.time() - self._bounds.idle_s
        for connection in [c for c in self._connections.values() if c.flushed_at < since and not self._in_use(c)]:
            connection.close()
            del self._connections[connection.endpoint]
        self._sweeper = None
        if self._connections:
            self._sweep_later()

    def _in_use(self, connection: Connection) -> bool:
        return connection.busy or connection.endpoint in self._watches

    def _on_lost(self, connection: Connection) -> None:
        self._waiting.lost(connection.endpoint)
        self._watches.lost(connection.endpoint)

    def _on_gate(self) -> None:
        if self._running:
            self._gatekeeper.on_readable()

    def _on_readable(self) -> None:
        """Takes everything there is, up to a bound that leaves the loop to others in between."""
        if not self._running:
            return
        listener = self._listener
        for _ in range(_FRAMES_PER_WAKE):
            if not readable(listener):
                return
            try:
                self._receive(listener.recv(zmq.NOBLOCK))
            except Exception:  # the frames behind this one would wait until another arrives
                self._log.exception("a frame could not be handled")
        self._loop.call_soon(self._on_readable, context=self._detached)

    def _receive(self, data: bytes) -> None:
        try:
            frame = decode(data)
        except FrameError:
            self.counts.frames_refused += 1
            return
        if frame.to != self._instance:
            self.counts.frames_refused += 1  # meant for a process that had this port before us
            for number in frame.calls:
                self._answer(frame.sender, number, _GONE)
            return
        self.counts.frames_received += 1
        if frame.items:
            self._inboxes.deliver(frame.items)
        if frame.answers:
            self._waiting.settle(frame.answers)
        for number, call in frame.calls.items():
            self._answering.answer(call, functools.partial(self._answer, frame.sender, number))

    def _answer(self, endpoint: str, number: int, answer: Answer) -> None:
        connection = self._connect(endpoint) if self._running else None
        if connection is not None:
            connection.answer(number, answer)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
