"""Receiving ends of streams: the inboxes of one process, and how items find theirs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

from serve_app.channel.port import Address, ChannelCounts, Sink
from serve_app.telemetry import logger


class StreamInbox:
    """One stream's inbox. Filled and read in one event loop, by one reader."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_inboxes",
        "_items",
        "_max_items",
        "_over",
        "_sink",
        "_waiter",
        "address",
        "overrun",
    )

    def __init__(self, inboxes: Inboxes, address: Address, max_items: int, sink: Sink | None) -> None:
        self.address = address
        self.overrun = False
        self._inboxes = inboxes
        self._max_items = max_items
        self._sink = sink
        self._over: Callable[[], None] | None = None
        self._items: list[bytes] = []
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def deliver(self, items: list[bytes]) -> bool:
        """Takes a batch. False where it is beyond the bound: what came before is kept, then the iteration ends."""
        if self._sink is not None:
            self._sink(items)
            return True
        if self._items:
            if len(self._items) + len(items) > self._max_items:
                return self._overflow()
            self._items += items
            return True
        if len(items) > self._max_items:
            return self._overflow()
        self._items = items
        self._wake()
        return True

    def _overflow(self) -> bool:
        self.overrun = True
        self.end()
        return False

    def pour(self, sink: Sink, over: Callable[[], None]) -> None:
        if self._items:
            items, self._items = self._items, []
            sink(items)
        self._sink = sink
        if self._ended:
            over()
        else:
            self._over = over

    def end(self) -> None:
        self._ended = True
        self._inboxes.forget(self)
        self._wake()
        if self._over is not None:
            over, self._over = self._over, None
            over()

    def close(self) -> None:
        self._items = []
        self.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("an inbox has one reader")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items, self._items = self._items, []
        return items


class Inboxes:
    """All inboxes of one process, by stream number. Numbers are not used twice."""

    def __init__(self, counts: ChannelCounts) -> None:
        self._counts = counts
        self._open: dict[int, StreamInbox] = {}
        self._numbers = itertools.count(1)
        self._log = logger("channel")

    def open(self, endpoint: str, max_items: int, sink: Sink | None) -> StreamInbox:
        inbox = StreamInbox(self, Address(endpoint=endpoint, stream=next(self._numbers)), max_items, sink)
        self._open[inbox.address.stream] = inbox
        return inbox

    def forget(self, inbox: StreamInbox) -> None:
        self._open.pop(inbox.address.stream, None)

    def deliver(self, items_by_stream: dict[int, list[bytes]]) -> None:
        """Routes one frame's items. Streams that nobody reads any more are normal: both ends close on their own."""
        inboxes = self._open
        counts = self._counts
        for stream, items in items_by_stream.items():
            if not items:
                continue
            inbox = inboxes.get(stream)
            if inbox is None:
                counts.items_unclaimed += len(items)
                continue
            try:
                taken = inbox.deliver(items)
            except Exception:  # one sink's fault must not take the other streams' items along
                self._log.exception("a stream's sink failed; the stream is closed", stream=stream)
                inbox.close()
                continue
            if taken:
                counts.items_received += len(items)
            else:
                counts.items_unclaimed += len(items)

    def end_all(self) -> None:
        for inbox in list(self._open.values()):
            inbox.end()
