"""The embedded store put together: which SQL runs on the writer, which on a reader."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import apsw

from serve_app.domain.conversation import Conversation, Message, Page, Reaction, SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.domain.turns import (
    AcceptedTurn,
    AppendReply,
    AppendTurn,
    EventPage,
    NewTurn,
    OnBusy,
    Owner,
    Turn,
    TurnClaim,
)
from serve_app.domain.usage import Grouping, UsageRow, UsageSums
from serve_app.settings import StoreSettings
from serve_app.storage.pages import (
    MAX_EVENTS,
    bounded_limit,
    conversation_cursor,
    invalid_cursor,
    message_cursor,
    record_cursor,
    sums_cursor,
    usage_cursor,
)
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.rules import to_us
from serve_app.storage.sqlite import acceptance, appends, conversations, records, removals, turns, usage
from serve_app.storage.sqlite.connection import open_writer
from serve_app.storage.sqlite.folder import DATABASE, FolderLock, unusable
from serve_app.storage.sqlite.reader import Readers
from serve_app.storage.sqlite.writer import Clock, Writer
from serve_app.telemetry import logger

LOCK_WAIT_S = 15.0
"""How long a replica waits for its predecessor to let go of the folder."""


class SqliteStore:
    """The store port on one SQLite file. Made by :meth:`open`, let go by :meth:`close`."""

    def __init__(self, writer: Writer, readers: Readers, lock: FolderLock, clock: Clock) -> None:
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._clock = clock

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: StoreSettings | None = None,
        *,
        clock: Clock = time.time,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> SqliteStore:
        """Opens ``folder/parley.db``, making both if need be, and holds the folder until closed or dead.

        ``clock`` gives Unix seconds and is called from several threads. Raises ConfigError, with a sentence that names the
        setting, for a folder or file that cannot be used or that another process keeps for longer than ``lock_wait_s``.
        """
        limits = limits or StoreSettings()
        lock = await FolderLock.acquire(folder, wait_s=lock_wait_s)
        try:
            connection = await asyncio.to_thread(open_writer, folder / DATABASE)
            try:
                readers = Readers(folder / DATABASE, max_queue=limits.max_queue)
            except apsw.Error as error:
                connection.close()
                raise unusable(folder, str(error)) from error
            await asyncio.to_thread(_grant_grace, connection, clock())
            writer = Writer(connection, clock=clock, max_batch=limits.max_batch, max_queue=limits.max_queue)
        except BaseException:
            lock.release()
            raise
        return cls(writer, readers, lock, clock)

    @property
    def queued(self) -> int:
        """Writes waiting now, for a gauge."""
        return self._writer.queued

    @property
    def writer_s(self) -> float:
        """How long the writer has worked, in seconds."""
        return self._writer.worked_s

    # Conversations

    async def ensure_conversation(self, key: ConversationKey) -> Conversation:
        found = await self._readers.run(conversations.find, key)
        return found if found is not None else await self._writer.run(conversations.ensure, key)

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        return await self._readers.run(conversations.get, key)

    async def list_conversations(
        self, principal: Principal, *, archived: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Conversation]:
        after = conversation_cursor(cursor, archived=archived)
        return await self._readers.run(
            conversations.page, principal, archived=archived, after=after, limit=bounded_limit(limit)
        )

    async def update_conversation(
        self,
        key: ConversationKey,
        *,
        title: str | None = None,
        archived: bool | None = None,
        session_prompt: SessionPrompt | None = None,
        if_untitled: bool = False,
        if_match: str | None = None,
        usage: UsageRow | None = None,
    ) -> Conversation:
        return await self._writer.run(
            conversations.update,
            key,
            title=title,
            archived=archived,
            session_prompt=session_prompt,
            if_untitled=if_untitled,
            if_match=if_match,
            consumed=usage,
        )

    async def delete_conversation(self, key: ConversationKey) -> None:
        conversation = await self._writer.run(removals.hide, key)
        while await self._writer.run(removals.clear, conversation):
            pass

    async def archive_all(self, principal: Principal) -> int:
        through = await self._readers.run(conversations.newest, principal)
        archived = 0
        while changed := await self._writer.run(conversations.archive_some, principal, through):
            archived += changed
        return archived

    async def delete_all(self, principal: Principal) -> int:
        through = await self._readers.run(conversations.newest, principal)
        deleted = 0
        while changed := await self._writer.run(removals.hide_some, principal, through):
            deleted += changed
        await self._clear_hidden()
        return deleted

    async def list_messages(
        self,
        key: ConversationKey,
        *,
        cursor: str | None = None,
        limit: int = 50,
        descending: bool = False,
        replaced: bool = False,
    ) -> Page[Message]:
        after = message_cursor(cursor, descending=descending)
        return await self._readers.run(
            conversations.message_page,
            key,
            after=after,
            limit=bounded_limit(limit),
            descending=descending,
            replaced=replaced,
        )

    async def get_message(self, key: ConversationKey, message_id: str) -> Message:
        return await self._readers.run(conversations.get_message, key, message_id)

    async def find_message(self, key: ConversationKey, client_id: str) -> Message:
        return await self._readers.run(conversations.message_called, key, client_id)

    async def set_reaction(self, key: ConversationKey, message_id: str, reaction: Reaction | None) -> Message:
        return await self._writer.run(conversations.react, key, message_id, reaction)

    # The turn log

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        return await self._writer.run(acceptance.accept, turn, on_busy=on_busy, max_waiting=max_waiting)

    async def claim_turn(
        self,
        key: TurnKey,
        owner: Owner,
        *,
        lease_s: float,
        history_limit: int,
        dead: Sequence[str] = (),
        ahead: int = 0,
    ) -> TurnClaim:
        return await self._writer.run(
            turns.claim, key, owner, lease_s=lease_s, history_limit=min(history_limit, MAX_PAGE), dead=dead, ahead=ahead
        )

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        if not batch:
            return []
        return await self._writer.run(appends.append, batch)

    async def get_turn(self, key: TurnKey) -> Turn:
        return await self._readers.run(turns.get, key)

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        return await self._readers.run(
            turns.read_events, key, after_seq=min(after_seq, 2**62), limit=bounded_limit(limit, MAX_EVENTS)
        )

    async def request_cancel(self, key: TurnKey) -> Turn:
        return await self._writer.run(turns.request_cancel, key)

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        return await self._readers.run(turns.find_abandoned, now=self._clock(), limit=min(limit, MAX_EVENTS))

    # Records

    async def get_record(self, tenant_id: str, kind: str, record_id: str) -> Record:
        return await self._readers.run(records.get, tenant_id, kind, record_id)

    async def save_record(
        self, tenant_id: str, kind: str, record_id: str, body: bytes, *, if_match: str | None = None
    ) -> Record:
        return await self._writer.run(records.save, tenant_id, kind, record_id, body, if_match=if_match)

    async def delete_record(self, tenant_id: str, kind: str, record_id: str) -> None:
        await self._writer.run(records.delete, tenant_id, kind, record_id)

    async def list_records(
        self, tenant_id: str, kind: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Record]:
        return await self._readers.run(
            records.page, tenant_id, kind, after=record_cursor(cursor), limit=bounded_limit(limit)
        )

    # Usage

    async def list_usage(
        self, tenant_id: str, day: date, *, cursor: str | None = None, limit: int = 50
    ) -> Page[UsageRow]:
        after = usage_cursor(cursor, day=day.isoformat())
        if after is not None and not re.fullmatch(r"[0-9]{1,18}", after.row_id):
            raise invalid_cursor()
        return await self._readers.run(usage.page, tenant_id, day, after=after, limit=bounded_limit(limit))

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        await self._writer.run(usage.add, rows)

    async def sum_usage(
        self,
        tenant_id: str,
        first: date,
        last: date,
        by: Grouping,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> UsageSums:
        after = sums_cursor(cursor, by=by)
        limit = bounded_limit(limit)
        return await self._readers.run(
            usage.sums, tenant_id, first, last, by, user_id=user_id, after=after, limit=limit
        )

    # Health and upkeep

    async def check(self) -> None:
        await self._writer.run(_write_check)
        await self._readers.run(_read_check)

    async def prune_events(self, *, older_than_s: float, limit: int = 1000) -> int:
        await self._clear_hidden()
        pruned = 0
        while pruned < limit:
            piece = await self._writer.run(removals.prune_some, older_than_s=older_than_s, limit=limit - pruned)
            if not piece:
                break
            pruned += piece
        return pruned

    async def close(self) -> None:
        await self._readers.close()
        await self._writer.close()
        self._lock.release()

    async def _clear_hidden(self) -> None:
        while await self._writer.run(removals.clear):
            pass


def _grant_grace(connection: apsw.Connection, now: float) -> None:
    try:
        turns.grant_grace(connection, now)
    except apsw.Error as error:
        # As when the disk is full: the store can still be read, and its writes say what is wrong.
        _log.warning("no grace for leases", reason=str(error))


def _write_check(connection: apsw.Connection, now: float) -> None:
    connection.execute(
        "INSERT INTO health (id, checked_us) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET checked_us = excluded.checked_us",
        (to_us(now),),
    )


def _read_check(connection: apsw.Connection) -> None:
    row: Any = connection.execute("SELECT checked_us FROM health").fetchone()
    del row


_log = logger("storage")
