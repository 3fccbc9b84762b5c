"""The turns stage as ingress sees it: run a turn, and follow one live.

Following is a hint on top of the log: whoever follows must be able to go on from ``seq`` by reading the store, and
nothing is lost when the stage or the channel drops a follower.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Owner


class Title(Struct, frozen=True, kw_only=True, array_like=True, tag="title"):
    """The conversation's title has been made beside the turn."""

    title: str


class Notice(Struct, frozen=True, kw_only=True, array_like=True, tag="notice"):
    """A sentence about the turn that its client should know, and that is no event of it. Whoever follows later is not told."""

    message: str


class TailEnd(Struct, frozen=True, kw_only=True, array_like=True, tag="end"):
    """Nothing more will come on this tail. ``complete``: the terminal event has been sent; else read on from the log."""

    complete: bool


TailItem = EventRecord | Title | Notice | TailEnd


class LiveTail(Protocol):
    """A live follower. Iterating yields batches: everything that gathered since the last one.

    The iterator ends after a ``TailEnd``; a slow reader is dropped with ``TailEnd(complete=False)``.
    """

    def __aiter__(self) -> AsyncIterator[Sequence[TailItem]]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class PushedTail(LiveTail, Protocol):
    """A live tail that can also be listened to, which costs no task of its own."""

    def listen(self, take: Callable[[Sequence[TailItem]], None], over: Callable[[], None]) -> None:
        """Instead of iterating: batches go to ``take`` as they come, and then ``over`` is called, once."""


class Turns(Protocol):
    async def run(self, key: TurnKey, *, after_seq: int = 1) -> LiveTail:
        """Starts an accepted turn, which then goes on whatever becomes of the caller, and follows it from ``after_seq``.

        May raise StageUnavailable. Where no replica takes the turn its tail ends incomplete, and the sweeper picks it up.
        """

    def start(self, key: TurnKey) -> None:
        """The same for a turn that nobody follows. Returns at once, and never raises: a turn that fails to start is swept up."""

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> LiveTail:
        """Follows a turn that ``owner`` runs. Where the owner does not answer, the tail ends incomplete."""

    async def hint_cancel(self, key: TurnKey, owner: Owner) -> None:
        """Tells the owner that a cancel has been requested in the store, so that it need not wait for its next append."""

    async def hint_answer(self, key: TurnKey, owner: Owner) -> None:
        """Tells the owner that a question of the turn has its answer in the store, so that it need not wait for its next look."""
