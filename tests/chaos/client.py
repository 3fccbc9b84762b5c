"""What every client of the suite does, whatever its transport: it does not give up before its turn has ended."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import aiohttp

from tests.chaos.ledger import TURN_S, Backoff, Entry, Plan
from tests.chaos.transcript import Json

OnEvent = Callable[[Entry, Json], Awaitable[None]]
"""Called after each new event; may raise ConnectionError to break the connection there."""


class Left(ConnectionError):
    """The connection is of no use any more; ``after_s`` is how long the server asked to stay away."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Client(ABC):
    """Sends messages to one server as one user. Every message has connections of its own."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, headers: dict[str, str], on_event: OnEvent | None = None
    ) -> None:
        self._url = url
        self._session = session
        self._headers = headers
        self._on_event = on_event

    async def send(self, plan: Plan) -> Entry:
        """The message's line in the ledger, once its turn has ended or its time is up."""
        return await self.go_on(Entry(plan))

    async def go_on(self, entry: Entry) -> Entry:
        """Follows a message to its end over as many connections as it takes, sending it first where nobody knows of it."""
        rng = random.Random(entry.plan.seed)
        backoff = Backoff(rng)
        entry.sent_at = entry.sent_at or time.monotonic()
        try:
            async with asyncio.timeout(TURN_S):
                while not entry.over:
                    wait_s = 0.0
                    try:
                        await self._connect(entry, backoff, rng)
                    except Left as left:
                        entry.broke(str(left))
                        wait_s = left.after_s
                    except (aiohttp.ClientError, OSError, TimeoutError) as error:
                        entry.broke(f"{type(error).__name__}: {error}"[:200])
                    if not entry.over:
                        await asyncio.sleep(backoff.wait_s(wait_s))
        except TimeoutError:
            entry.gave_up = f"no end within {TURN_S:g} s"
        return entry

    @abstractmethod
    async def _connect(self, entry: Entry, backoff: Backoff, rng: random.Random) -> None:
        """One connection, up to the end of the turn. Raises Left and what aiohttp raises."""

    async def _take(self, entry: Entry, event: Json, backoff: Backoff) -> None:
        """An event that has come. Numbers follow one another; what was seen before may come again."""
        backoff.heard()
        if entry.take(event) and self._on_event is not None:
            await self._on_event(entry, event)

    def _named(self, entry: Entry) -> dict[str, str]:
        """Headers under which everything about this message is asked."""
        return self._headers | {"X-Request-ID": entry.plan.request_id}


def check_order(entry: Entry, event: Json) -> None:
    """To be asked before an event is taken from a transport that shows all of them."""
    seq, cursor = event["seq"], entry.transcript.cursor
    if seq > cursor + 1:
        entry.transcript.violations.append(f"event {seq} came after {cursor}: a gap")
