"""The side channel between replicas: batches of stream items and small requests, without a broker.

Handles carry control and lifetime; what flows often flows here. Each process has one channel with one endpoint. A
receiver opens an inbox and hands its address to a peer in an ordinary call; the peer sends items to that address. All
streams of a pair of processes share one connection and one frame per tick, so the cost of an item falls with load.

Guarantees: items of one stream arrive in order or not at all; a gap is possible (a peer died, an inbox was slow), so the
protocol on top counts. Nothing here blocks the sender: past the high-water mark items are dropped, and a reader that
falls behind its inbox's bound is closed as overrun. Peers that do not hold the graph's secret are not listened to.

Adapters: ``zeromq`` between processes, ``local`` within one. A channel belongs to the event loop it was started in; it
may be used from requests' tasks, and nothing of their context (cancellation, variables) follows into it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

Handler = Callable[[bytes], Awaitable[bytes]]
"""Answers one request. A ParleyError it raises is raised again at the requester; anything else arrives as Internal.
It is cancelled when the requester's time is up."""

Lost = Callable[[], None]
"""Called once when a peer's process is gone. Must not block."""

Sink = Callable[[list[bytes]], None]
"""Takes what has arrived for one stream, at least one item. Must not block."""


class Address(Struct, frozen=True, kw_only=True):
    """Where an inbox is: the process's endpoint and the inbox's number there. Travels in ordinary calls."""

    endpoint: str
    stream: int


@dataclass(slots=True)
class ChannelCounts:
    """What a channel has done since it started. Only ever grows."""

    frames_sent: int = 0
    frames_received: int = 0
    frames_refused: int = 0
    """Frames that could not be read, or were meant for an earlier process at this address."""
    items_sent: int = 0
    items_received: int = 0
    items_dropped: int = 0
    """Items not sent: the peer is gone, or past its high-water mark."""
    items_unclaimed: int = 0
    """Items received for no open inbox, or beyond an inbox's bound."""
    connections_opened: int = 0
    connections_lost: int = 0
    peers_refused: int = 0
    """Handshakes refused for want of the graph's secret, where they came far enough to be counted."""


class Inbox(Protocol):
    """Receives one stream. Iterating yields everything that has gathered, at least one item, each time."""

    @property
    def address(self) -> Address: ...

    @property
    def overrun(self) -> bool:
        """True once the reader fell behind its bound: iteration ends early, after what was kept."""

    def __aiter__(self) -> AsyncIterator[list[bytes]]: ...

    def pour(self, sink: Sink, over: Callable[[], None]) -> None:
        """Instead of iterating: what has gathered goes to ``sink`` now, and the rest as it arrives, without a bound. ``over`` is
        called once, when nothing more will come."""

    def end(self) -> None:
        """Ends the iteration after what has already arrived."""

    def close(self) -> None:
        """Stops receiving and forgets what has gathered. Idempotent."""


class Channel(Protocol):
    @property
    def endpoint(self) -> str:
        """This process's address for peers, never used again by a later process. Valid after ``start``."""

    @property
    def counts(self) -> ChannelCounts: ...

    async def start(self) -> None:
        """Begins to listen. Raises ConfigError where the address cannot be bound."""

    async def stop(self) -> None:
        """Ends every inbox, fails waiting requests, cancels handlers; nothing is left after a second. Idempotent."""

    def open(self, *, max_items: int = 10_000, sink: Sink | None = None) -> Inbox:
        """A new inbox. With a ``sink`` items go there as they arrive, and iterating only waits for the end: for those who
        pass a stream on, which then costs no wake-up of a task."""

    def send(self, to: Address, items: list[bytes]) -> None:
        """Queues items for a stream. The first items of a stream go at once, later ones with the next tick's frame.

        Raises TooLarge for an item that no frame can hold.
        """

    def handle(self, name: str, handler: Handler) -> None:
        """Answers requests named ``name`` that peers send to this endpoint."""

    def watch(self, endpoint: str, lost: Lost) -> Lost:
        """Calls ``lost`` when the connection to a peer that has been asked something breaks; at once where there is none.

        Returns what ends the watch, to be called when it is no longer needed.
        """

    async def request(self, endpoint: str, name: str, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        """Asks the process at ``endpoint``. Raises what its handler raised, NotFound for an unknown name, TooLarge, or
        StageUnavailable when the peer is gone or no answer comes in time (it may have acted all the same)."""
