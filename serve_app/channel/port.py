"""The side channel between replicas: batches of stream items and small requests, without a broker.

Handles carry control and lifetime; what flows often flows here. Each process has one channel with one endpoint. A
receiver opens an inbox and hands its address to a peer in an ordinary call; the peer sends items to that address. All
streams of a pair of processes share one connection and one frame per tick, so the cost of an item falls with load.

Guarantees: items of one stream arrive in order or not at all; a gap is possible (a peer died, an inbox was slow), so the
protocol on top counts. Nothing here blocks the sender: past the high-water mark items are dropped, and a reader that
falls behind its inbox's bound is closed as overrun. Peers that do not hold the graph's secret are not listened to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from msgspec import Struct

Handler = Callable[[bytes], Awaitable[bytes]]
"""Answers one request. A ParleyError it raises is raised again at the requester."""


class Address(Struct, frozen=True, kw_only=True):
    """Where an inbox is: the process's endpoint and the inbox's number there. Travels in ordinary calls."""

    endpoint: str
    stream: int


class Inbox(Protocol):
    """Receives one stream. Iterating yields everything that has gathered, at least one item, each time."""

    @property
    def address(self) -> Address: ...

    @property
    def overrun(self) -> bool:
        """True once the reader fell behind its bound: iteration has ended early."""

    def __aiter__(self) -> AsyncIterator[list[bytes]]: ...

    def end(self) -> None:
        """Ends the iteration after what has already arrived."""

    def close(self) -> None:
        """Stops receiving. Idempotent."""


class Channel(Protocol):
    @property
    def endpoint(self) -> str:
        """This process's address for peers. Valid after ``start``."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def open(self, *, max_items: int = 10_000) -> Inbox:
        """A new inbox."""

    def send(self, to: Address, items: list[bytes]) -> None:
        """Queues items for a stream. The first items of a stream go at once, later ones with the next tick's frame."""

    def handle(self, name: str, handler: Handler) -> None:
        """Answers requests named ``name`` that peers send to this endpoint."""

    async def request(self, endpoint: str, name: str, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        """Asks the process at ``endpoint``. Raises what its handler raised, or StageUnavailable when no answer comes in time."""
