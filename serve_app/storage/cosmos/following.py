"""What should have followed from a change and may not have: rows of the inbox and of usage, and tombstones to be cleared.

Each is looked at once it is old enough, a few at a time, and where that fails again later and later: none of it waits for
another, and nobody waits for any of it. What has not been done can be named and taken up by the next who reads the feed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from serve_app.storage.cosmos.documents import Head, TurnDocument
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.layout import HEAD, Partition
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.telemetry import logger

MANY = 5_000
"""From how many on nothing more should be read, as long as they become fewer."""
MOST = 20_000
_HELD = 2_000
"""Documents kept in memory at most; beyond, they are read again."""
_HEADS_AT_ONCE = 16
_TURNS_AT_ONCE = 100
_LONGEST_S = 20.0
"""How long one may take; what it has done by then counts."""
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 300.0

Name = tuple[Partition, str]
"""Of a document."""


class Due(Struct):
    """``document`` as it was seen, None where it has to be read; ``seen`` and ``not_before`` are monotonic."""

    document: Head | TurnDocument | None
    seen: float
    failures: int = 0
    not_before: float = 0.0


class Following:
    """``patience_s``: how old a head or an ended turn is before what should follow from it is looked for."""

    def __init__(
        self,
        sessions: Sessions,
        removals: Removals,
        inbox: Inbox,
        usage: UsageRows,
        *,
        patience_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._removals = removals
        self._inbox = inbox
        self._usage = usage
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._due: dict[Name, Due] = {}
        self._is_stuck = False

    def __len__(self) -> int:
        return len(self._due)

    @property
    def names(self) -> list[Name]:
        """What has not been done, for :meth:`take_up`."""
        return list(self._due)

    @property
    def has_its_hands_full(self) -> bool:
        return len(self._due) >= MANY and not self._is_stuck

    def note(self, document: Head | TurnDocument) -> bool:
        """A document has changed. False where there is no room to remember that."""
        if isinstance(document, Head):
            follows = document.deleted or not self._inbox.shows(document)
        else:
            follows = document.ended and not self._usage.has(document.turn_id)
        name = document.partition, document.id
        if not follows:
            self._due.pop(name, None)
            return True
        if name not in self._due and len(self._due) >= MOST:
            return False
        self._due[name] = Due(document if len(self._due) < _HELD else None, self._monotonic())
        return True

    def take_up(self, names: Iterable[Name]) -> None:
        for name in names:
            self._due.setdefault(name, Due(None, self._monotonic()))

    def forget(self) -> None:
        self._due.clear()

    async def work(self) -> int:
        """Does some of what is due; returns how many are done. Never fails."""
        now = self._monotonic()
        age_s = self._patience_s if len(self._due) < MANY / 2 else 0.0
        ready = [name for name, due in self._due.items() if now - due.seen >= age_s and now >= due.not_before]
        heads = [name for name in ready if name[1] == HEAD][:_HEADS_AT_ONCE]
        turns = [name for name in ready if name[1] != HEAD][:_TURNS_AT_ONCE]
        before = {name: self._due[name] for name in (*heads, *turns)}
        done = await asyncio.gather(
            self._try(turns, self._make_up_for_turns), *(self._try([name], self._make_up_for_head) for name in heads)
        )
        finished = [name for names in done for name in names]
        for name in finished:
            if self._due.get(name) is before[name]:
                del self._due[name]
        self._is_stuck = bool(before) and not finished
        return len(finished)

    async def _try(self, names: list[Name], make_up: Callable[[list[Name]], Awaitable[None]]) -> list[Name]:
        if not names:
            return []
        try:
            async with asyncio.timeout(_LONGEST_S):
                await make_up(names)
        except Exception as error:  # whatever it is, the others go on
            _log.warning("not made up for yet", documents=len(names), reason=str(error) or type(error).__name__)
            now = self._monotonic()
            for name in names:
                if (due := self._due.get(name)) is not None:
                    due.not_before = now + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(due.failures, 10))
                    due.failures += 1
            return []
        return names

    async def _make_up_for_head(self, names: list[Name]) -> None:
        head = await self._document(names[0])
        if not isinstance(head, Head):
            return
        if not head.deleted:
            await self._inbox.repair(head)
            return
        # The list first: what its user sees must not wait for what is to be cleared.
        await self._inbox.delete(head)
        if not head.cleared:
            await self._removals.clear(head)

    async def _make_up_for_turns(self, names: list[Name]) -> None:
        found = [await self._document(name) for name in names]
        turns = [turn for turn in found if isinstance(turn, TurnDocument) and turn.ended]
        if repaired := await self._usage.repair(turns):
            _log.info("usage made up for", turns=repaired)

    async def _document(self, name: Name) -> object:
        due = self._due.get(name)
        if due is not None and due.document is not None:
            return due.document
        return await self._sessions.get(*name)


_log = logger("storage")
