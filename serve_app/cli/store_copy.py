"""Copying one store into another: page by page, several conversations at once, from where an earlier run has stopped.

    conversations ─► usage ─► records        the state is written after every page, beside the data

Every piece can be copied again without harm, so that a run which was stopped in the middle of a page begins that page anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.errors import ConfigError, Conflict, NotFound, Overloaded, ParleyError, UpstreamFailed
from serve_app.patience import patiently
from serve_app.storage.transfer import StoreCounts, Transfer

T = TypeVar("T")

PAGE_CONVERSATIONS = 100
PAGE_ROWS = 500
AT_ONCE = 8
"""Conversations that are under way together; each is in memory as a whole."""
PATIENCE_S = 120.0
"""How long a store that is busy or away is asked again before the copy stops."""
MAX_WAIT_S = 10.0

Phase = Literal["conversations", "usage", "records", "done"]
_NEXT: dict[Phase, Phase] = {"conversations": "usage", "usage": "records", "records": "done"}
OnProgress = Callable[[Phase, int], None]
"""Told how many of a phase have been copied by now."""


class CopyState(Struct, frozen=True, kw_only=True):
    """How far a copy has come. ``source`` and ``target`` say which stores; ``counted`` is what the source had when it began."""

    source: str
    target: str
    counted: StoreCounts
    phase: Phase = "conversations"
    cursor: str | None = None
    copied: int = 0
    """Of this phase."""


class StateFile:
    """Where the state is kept between runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> CopyState | None:
        """None where no copy has stopped half-way. Raises ConfigError for a file that is no state."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=CopyState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"The state of the copy in {self.path} cannot be read ({error}); use --restart."
            ) from error

    def write(self, state: CopyState) -> None:
        """Raises ConfigError where it cannot be written."""
        beside = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
            beside.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"The state of the copy cannot be written to {self.path} ({error.strerror}); make room there, or correct "
                "its permissions."
            ) from error

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class StoreCopy:
    """One copy between two open stores. ``begin``, then ``run``, then ``compare``."""

    def __init__(self, source: Transfer, target: Transfer, state: StateFile, *, patience_s: float = PATIENCE_S) -> None:
        self._source = source
        self._target = target
        self._file = state
        self._patience_s = patience_s
        self.state = CopyState(source="", target="", counted=StoreCounts())

    async def begin(self, source: str, target: str, *, restart: bool) -> bool:
        """Counts the source and finds out where to go on; whether that is in the middle.

        ``source`` and ``target`` name the two stores. Raises Conflict for a state that is about others, or about a source
        that has changed since.
        """
        earlier = None if restart else self._file.read()
        counted = await self._patiently(self._source.count_all)
        if earlier is None:
            self.state = CopyState(source=source, target=target, counted=counted)
            self._file.write(self.state)
            return False
        if (earlier.source, earlier.target) != (source, target):
            raise Conflict(
                f"A copy from {earlier.source} to {earlier.target} has stopped half-way ({self._file.path}); finish that one "
                "first, or use --restart to forget it."
            )
        if earlier.counted != counted:
            raise Conflict(
                "What is to be copied has changed since the copy began; use --restart to copy all of it again. What the "
                "target has already is only compared."
            )
        self.state = earlier
        return True

    async def run(self, on_progress: OnProgress) -> None:
        """Copies what is left. Raises ParleyError where a store fails for longer than patience lasts."""
        if self.state.phase == "conversations":
            await self._pages(
                lambda cursor: self._source.scan_conversations(cursor=cursor, limit=PAGE_CONVERSATIONS),
                self._copy_conversations,
                on_progress,
            )
        if self.state.phase == "usage":
            await self._pages(
                lambda cursor: self._source.scan_usage(cursor=cursor, limit=PAGE_ROWS),
                lambda page, _: self._patiently(lambda: self._target.import_usage(page.items)),
                on_progress,
            )
        if self.state.phase == "records":
            await self._pages(
                lambda cursor: self._source.scan_records(cursor=cursor, limit=PAGE_ROWS),
                lambda page, _: self._patiently(lambda: self._target.import_records(page.items)),
                on_progress,
            )

    async def compare(self) -> tuple[StoreCounts, StoreCounts]:
        """What the two stores have now. The copy is through then, and its state forgotten."""
        counts = (
            await self._patiently(self._source.count_all),
            await self._patiently(self._target.count_all),
        )
        self._file.remove()
        return counts

    async def _pages(
        self,
        scan: Callable[[str | None], Awaitable[Page[T]]],
        copy: Callable[[Page[T], Callable[[], None]], Awaitable[None]],
        on_progress: OnProgress,
    ) -> None:
        phase = self.state.phase
        on_progress(phase, self.state.copied)
        while self.state.phase == phase:
            before = self.state
            page = await self._patiently(lambda: scan(self.state.cursor))
            of_page = 0

            def one_more(so_far: int = before.copied) -> None:
                nonlocal of_page
                of_page += 1
                on_progress(phase, so_far + of_page)

            await copy(page, one_more)
            self.state = replace(before, copied=before.copied + len(page.items), cursor=page.next_cursor)
            on_progress(phase, self.state.copied)
            if page.next_cursor is None:
                self.state = replace(self.state, phase=_NEXT[phase], copied=0)
            self._file.write(self.state)

    async def _copy_conversations(self, page: Page[ConversationKey], one_more: Callable[[], None]) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def copy(key: ConversationKey) -> None:
            async with room:
                try:
                    snapshot = await self._patiently(lambda: self._source.export_conversation(key))
                except NotFound:
                    return  # deleted since
                await self._patiently(lambda: self._target.import_conversation(snapshot))
                one_more()

        tasks = [asyncio.create_task(copy(key)) for key in page.items]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """All that is asked can be repeated."""
        try:
            return await patiently(call, for_s=self._patience_s, max_wait_s=MAX_WAIT_S, on=(Overloaded, UpstreamFailed))
        except (Overloaded, UpstreamFailed) as error:
            raise ParleyError(
                f"{error.message} The same command goes on from where the copy has stopped.", error.retryable
            ) from error
