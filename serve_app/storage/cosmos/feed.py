"""The change feed of a container, and how far it has been read.

The SDK can read all of it at once, but cannot go on from a place at which a part has not been read yet. So each part is read by
itself, from a place of its own; where a part is split later on, its place stands for both halves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct

from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import Json
from serve_app.storage.cosmos.layout import Container
from serve_app.storage.cosmos.operations import PlaceLost
from serve_app.telemetry import logger


class Part(Struct):
    """A part of the feed, and from where to go on in it: None from the beginning."""

    feed_range: Json
    continuation: str | None = None


class ChangeFeed:
    """What has changed in a container: the newest version of each document, some of them perhaps twice."""

    def __init__(self, connection: Connection, container: Container) -> None:
        self._connection = connection
        self._container = container
        self._parts: list[Part] = []

    @property
    def place(self) -> str | None:
        """How far it has been read, for :meth:`go_to`; None for not at all."""
        return msgspec.json.encode(self._parts).decode() if self._parts else None

    def go_to(self, place: str | None) -> None:
        self._parts = [] if place is None else msgspec.json.decode(place, type=list[Part])

    async def pages(self, *, limit: int, most: int) -> AsyncIterator[list[Json]]:
        """Up to ``most`` pages of about ``limit`` documents. A page that was taken has been read, once the next is asked for."""
        read = 0
        if not self._parts:
            self._parts = [Part(piece) for piece in await self._connection.feed_ranges(self._container)]
        for part in list(self._parts):
            while read < most:
                try:
                    items, continuation = await self._connection.changes(
                        self._container, part.feed_range, part.continuation, limit=limit
                    )
                except PlaceLost:
                    _log.warning("the change feed is read from its beginning", container=self._container.name)
                    self._parts = []
                    return
                if items:
                    read += 1
                    yield items
                part.continuation = continuation
                if not items:
                    break
        # One that much happens in must not keep the others from being read next time.
        self._parts = [*self._parts[1:], *self._parts[:1]]


_log = logger("storage")
