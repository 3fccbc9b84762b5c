"""The channel within one process: for tests and for runs of the whole program in one event loop.

The same promises as between processes, without sockets, encryption or ticks: what is sent in one round of the event
loop arrives together in the next, and requests, their errors and their bounds behave alike.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools

from serve_app.channel.frames import CALL_OVERHEAD_BYTES, FRAME_OVERHEAD_BYTES, ITEM_OVERHEAD_BYTES, Answer, Call
from serve_app.channel.inbox import Inboxes, StreamInbox
from serve_app.channel.port import Address, ChannelCounts, Handler, Lost, Sink
from serve_app.channel.requests import MAX_CALLS, Answering, Waiting
from serve_app.channel.watches import Watches
from serve_app.errors import StageUnavailable, TooLarge
from serve_app.settings import ChannelSettings

_STOP_S = 0.8


class LocalNetwork:
    """The channels that reach each other."""

    def __init__(self) -> None:
        self._channels: dict[str, LocalChannel] = {}
        self._numbers = itertools.count(1)

    def join(self, channel: LocalChannel) -> str:
        """Returns the endpoint of the new member."""
        endpoint = f"local://{next(self._numbers)}"
        self._channels[endpoint] = channel
        return endpoint

    def leave(self, endpoint: str) -> None:
        self._channels.pop(endpoint, None)

    def find(self, endpoint: str) -> LocalChannel | None:
        return self._channels.get(endpoint)

    def lost(self, endpoint: str) -> None:
        """Tells everybody that a member left, as a broken connection would."""
        for channel in self._channels.values():
            channel.lost(endpoint)


class LocalChannel:
    """See ``Channel``. Channels with the same ``network`` reach each other; alone, a channel reaches itself."""

    def __init__(
        self, settings: ChannelSettings | None = None, network: LocalNetwork | None = None, max_calls: int = MAX_CALLS
    ) -> None:
        self.counts = ChannelCounts()
        self._settings = settings or ChannelSettings()
        self._network = network or LocalNetwork()
        self._inboxes = Inboxes(self.counts)
        self._answering = Answering(self._settings.max_frame_bytes - FRAME_OVERHEAD_BYTES, max_calls)
        self._gathered: dict[str, dict[int, list[bytes]]] = {}
        self._detached = contextvars.Context()
        self._watches = Watches()
        self._endpoint = ""
        self._running = False

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
        self._endpoint = self._network.join(self)
        self._running = True

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        self._network.leave(self._endpoint)
        self._network.lost(self._endpoint)
        self._waiting.lost()
        self._inboxes.end_all()
        self._gathered.clear()
        await self._answering.stop(_STOP_S)

    def open(self, *, max_items: int = 10_000, sink: Sink | None = None) -> StreamInbox:
        return self._inboxes.open(self.endpoint, max_items, sink)

    def handle(self, name: str, handler: Handler) -> None:
        self._answering.handle(name, handler)

    def send(self, to: Address, items: list[bytes]) -> None:
        if not items:
            return
        if not self._running or self._network.find(to.endpoint) is None:
            self.counts.items_dropped += len(items)
            return
        if max(map(len, items)) + ITEM_OVERHEAD_BYTES > self._settings.max_frame_bytes:
            raise TooLarge("An item is larger than a frame can be.")
        if not self._gathered:
            self._loop.call_soon(self._flush, context=self._detached)
        self._gathered.setdefault(to.endpoint, {}).setdefault(to.stream, []).extend(items)

    async def request(self, endpoint: str, name: str, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        if not self._running or self._network.find(endpoint) is None:
            raise StageUnavailable("The process that was asked is gone.")
        if len(payload) + CALL_OVERHEAD_BYTES > self._settings.max_frame_bytes:
            raise TooLarge("The request is larger than a frame can be.")
        within_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        call = Call(name, payload, int(within_s * 1000))

        def submit(number: int) -> None:
            self._loop.call_soon(self._call, endpoint, number, call, context=self._detached)

        return await self._waiting.request(endpoint, within_s, submit)

    def watch(self, endpoint: str, lost: Lost) -> Lost:
        if self._network.find(endpoint) is None:
            lost()
            return lambda: None
        return self._watches.add(endpoint, lost)

    def lost(self, endpoint: str) -> None:
        self._waiting.lost(endpoint)
        self._watches.lost(endpoint)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for endpoint, items_by_stream in gathered.items():
            peer = self._network.find(endpoint)
            count = sum(map(len, items_by_stream.values()))
            if peer is None:
                self.counts.items_dropped += count
                continue
            self.counts.frames_sent += 1
            self.counts.items_sent += count
            peer.counts.frames_received += 1
            peer._inboxes.deliver(items_by_stream)

    def _call(self, endpoint: str, number: int, call: Call) -> None:
        peer = self._network.find(endpoint)
        if peer is not None:
            peer._answering.answer(call, functools.partial(self._settle, number))

    def _settle(self, number: int, answer: Answer) -> None:
        if self._running:
            self._waiting.settle({number: answer})
