"""The way out to one peer: everything for it gathers here and leaves as one frame per tick.

    gathering ──first item of a stream, a call, an answer──► at the end of this round of the event loop ─┐
        └─────later items, tick over since the last frame──► likewise ───────────────────────────────────┤
        └─────later items, within the tick─────────────────► when the tick is over ──────────────────────┤
                                                                                                         ▼
    blocked (still connecting, or past the high-water mark) ◄──not writable── flush ──writable──► one frame
        └─ gathers on, up to one frame's size, then drops; flushes when the socket is writable

A connection that breaks is not repaired: addresses are never reused, so the peer is most likely gone for good. Whoever
sends again after a moment gets a new connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable

import zmq

from serve_app.channel.curve import ChannelKeys
from serve_app.channel.frames import CALL_OVERHEAD_BYTES, ITEM_OVERHEAD_BYTES, Answer, Call, Frame, encode, size_of
from serve_app.channel.port import ChannelCounts
from serve_app.channel.sockets import Context, readable, watch, writable
from serve_app.errors import StageUnavailable, TooLarge
from serve_app.settings import ChannelSettings

CONNECT_TIMEOUT_MS = 3_000
HANDSHAKE_TIMEOUT_MS = 5_000
HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
"""How long a peer's machine may be silent; a process that dies is noticed at once."""
_REMEMBERED_STREAMS = 10_000
"""Streams known to have begun. A forgotten one costs an early frame, nothing else."""

_monitor_numbers = itertools.count(1)


class Connection:
    """One peer's outgoing connection. ``on_lost`` is called once if it breaks or cannot be made."""

    def __init__(
        self,
        context: Context,
        keys: ChannelKeys,
        settings: ChannelSettings,
        endpoint: str,
        sender: str,
        counts: ChannelCounts,
        on_lost: Callable[[Connection], None],
        detached: contextvars.Context,
    ) -> None:
        """Raises zmq.ZMQError where ``endpoint`` is no address. ``detached`` is the context that callbacks run in."""
        self.endpoint = endpoint
        self.lost_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self._detached = detached
        self._counts = counts
        self._on_lost = on_lost
        self._sender = sender
        self._tick_s = settings.tick_ms / 1000
        self._max_bytes = settings.max_frame_bytes
        address, _, self._instance = endpoint.rpartition("/")
        self._items: dict[int, list[bytes]] = {}
        self._calls: dict[int, Call] = {}
        self._answers: dict[int, Answer] = {}
        self._gathered_items = 0
        self._gathered_bytes = 0
        self._begun: dict[int, None] = {}
        self._timer: asyncio.Handle | None = None
        self._urgent = False
        self._blocked = True  # until connected
        self.flushed_at = self._loop.time()
        # One frame per tick in the long run; half a tick early is allowed, because what comes from another process came
        # with its tick, and would else wait for ours as well whenever the two drift.
        self._due = 0.0

        self._socket = context.socket(zmq.PUSH)
        self._monitor = context.socket(zmq.PAIR)
        try:
            self._configure(keys, settings)
            # A socket's own monitor address could still be taken by an earlier one with the same descriptor.
            monitor_address = f"inproc://channel-{next(_monitor_numbers)}"
            self._socket.monitor(monitor_address, zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED)
            self._monitor.connect(monitor_address)
            self._socket.connect(address)
        except zmq.ZMQError:
            self._socket.close(0)
            self._monitor.close(0)
            raise
        watch(self._loop, self._socket, self._on_socket)
        watch(self._loop, self._monitor, self._on_monitor)
        counts.connections_opened += 1

    def _configure(self, keys: ChannelKeys, settings: ChannelSettings) -> None:
        keys.connector(self._socket)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, settings.high_water_frames),
            (zmq.IMMEDIATE, 1),  # nothing is queued for a peer that is not connected; it gathers here
            (zmq.RECONNECT_IVL, -1),
            (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.IPV6, int("[" in self.endpoint)),
        ):
            self._socket.setsockopt(option, value)

    @property
    def busy(self) -> bool:
        return bool(self._items or self._calls or self._answers)

    def send(self, stream: int, items: list[bytes]) -> None:
        """Raises TooLarge for an item that no frame can hold."""
        size = sum(map(len, items)) + ITEM_OVERHEAD_BYTES * len(items)
        if self._gathered_bytes + size > self._max_bytes and not self._make_room(size):
            if size <= self._max_bytes:
                self._counts.items_dropped += len(items)
                return
            if len(items) == 1:
                raise TooLarge("An item is larger than a frame can be.")
            for item in items:
                self.send(stream, [item])
            return
        gathered = self._items.get(stream)
        if gathered is None:
            self._items[stream] = items.copy()
        else:
            gathered += items
        self._gathered_items += len(items)
        self._gathered_bytes += size
        if stream in self._begun:
            if self._timer is None:
                self._schedule()
        else:
            if len(self._begun) >= _REMEMBERED_STREAMS:
                del self._begun[next(iter(self._begun))]
            self._begun[stream] = None
            self._schedule_now()

    def call(self, number: int, call: Call) -> None:
        """Raises TooLarge, or StageUnavailable where the peer does not keep up."""
        size = len(call.payload) + CALL_OVERHEAD_BYTES
        if size > self._max_bytes:
            raise TooLarge("The request is larger than a frame can be.")
        if self._gathered_bytes + size > self._max_bytes and not self._make_room(size):
            raise StageUnavailable("The process that was asked does not keep up.")
        self._calls[number] = call
        self._gathered_bytes += size
        self._schedule_now()

    def withdraw(self, number: int) -> None:
        """Takes a call back that has not left yet."""
        call = self._calls.pop(number, None)
        if call is not None:
            self._gathered_bytes -= len(call.payload) + CALL_OVERHEAD_BYTES

    def answer(self, number: int, answer: Answer) -> None:
        """Drops the answer where the peer does not keep up; its wait ends by time."""
        size = size_of(answer)
        if self._gathered_bytes + size > self._max_bytes and not self._make_room(size):
            return
        self._answers[number] = answer
        self._gathered_bytes += size
        self._schedule_now()

    def close(self) -> None:
        """Drops what is gathered. Idempotent."""
        if self._socket.closed:
            return
        self._counts.items_dropped += self._gathered_items
        self._clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_reader(self._monitor.fileno())
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def _make_room(self, size: int) -> bool:
        """Sends early what would make a frame too large. False where it cannot leave, or ``size`` alone is too large."""
        self._flush()
        return self._gathered_bytes + size <= self._max_bytes

    def _schedule(self) -> None:
        if self._blocked:
            return  # the socket tells when it is writable
        due = self._due - self._tick_s / 2
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._flush, context=self._detached)
        else:
            self._schedule_now()

    def _schedule_now(self) -> None:
        """At the end of this round of the loop: what others begin in the same round shares the frame."""
        if self._urgent or self._blocked:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._urgent = True
        self._timer = self._loop.call_soon(self._flush, context=self._detached)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._urgent = False
        if not self.busy or self._socket.closed:
            return
        if not writable(self._socket):
            self._blocked = True
            return
        self._blocked = False
        sender = self._sender if self._calls else ""
        data = encode(Frame(self._instance, sender, self._items, self._calls, self._answers))
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            self._blocked = True
            return
        self._counts.frames_sent += 1
        self._counts.items_sent += self._gathered_items
        self._clear()
        now = self.flushed_at = self._loop.time()
        self._due = min(max(self._due, now) + self._tick_s, now + 1.5 * self._tick_s)

    def _clear(self) -> None:
        self._items, self._calls, self._answers = {}, {}, {}
        self._gathered_items = self._gathered_bytes = 0

    def _on_socket(self) -> None:
        """The socket's state changed: the descriptor stays readable until the state is read."""
        if self._socket.closed or not writable(self._socket):
            return
        if self._blocked:
            self._blocked = False
            self._flush()

    def _on_monitor(self) -> None:
        """Any event we asked for means that the connection is over."""
        if self._socket.closed or not readable(self._monitor):
            return
        self.lost_at = self._loop.time()
        self._counts.connections_lost += 1
        self.close()
        self._on_lost(self)
