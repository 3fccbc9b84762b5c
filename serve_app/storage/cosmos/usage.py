"""What turns used: one row for each that has ended, gathered for a while and written in batches.

A row bears its turn's id, so writing it twice is writing it once. What a crash takes with it, the projection makes up for from
the turns themselves; with a journal it is read again at the next start.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable
from datetime import UTC
from typing import Protocol

import msgspec
from msgspec import Struct, field

from serve_app.domain.conversation import Page
from serve_app.domain.usage import Usage
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import TurnDocument
from serve_app.storage.cosmos.layout import USAGE, Partition, conversation_of, ulid_of
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.recent import Recent
from serve_app.storage.pages import UsageCursor, encode_cursor
from serve_app.storage.rules import datetime_of
from serve_app.storage.transfer import UsageRow as Consumed
from serve_app.telemetry import logger

MAX_BUFFERED = 10_000
"""Rows gathered at most; who adds more waits for them to be written."""
_BATCH_ROWS = 100
_WRITTEN = 50_000
_AGAIN_S = 1.0
"""How long rows wait that should have been written at once."""


class UsageRow(Struct, frozen=True, kw_only=True, rename="camel"):
    """A turn's usage as it lies in the database. ``at_us`` is when the turn ended, ``day`` the day of that (UTC)."""

    id: str
    tenant_id: str
    day: str
    user_id: str
    conversation_id: str
    turn_id: str
    model_id: str | None
    input_tokens: int
    output_tokens: int
    at_us: int
    request_charge: float | None = None
    etag: str = field(default="", name="_etag")

    @classmethod
    def of(
        cls, turn: TurnDocument, usage: Usage, *, model_id: str | None, request_charge: float | None = None
    ) -> UsageRow:
        key = conversation_of(turn.partition)
        return cls.made(
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            conversation_id=key.conversation_id,
            turn_id=turn.turn_id,
            model_id=model_id,
            usage=usage,
            at_us=turn.finished_us or 0,
            request_charge=request_charge,
        )

    @classmethod
    def made(
        cls,
        *,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        turn_id: str,
        model_id: str | None,
        usage: Usage,
        at_us: int,
        request_charge: float | None = None,
    ) -> UsageRow:
        return cls(
            id=ulid_of(turn_id),
            tenant_id=tenant_id,
            day=day_of(at_us),
            user_id=user_id,
            conversation_id=conversation_id,
            turn_id=turn_id,
            model_id=model_id,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            at_us=at_us,
            request_charge=request_charge,
        )

    @classmethod
    def of_ended(cls, turn: TurnDocument) -> UsageRow:
        """From what the turn's document knows."""
        outcome = documents.outcome_of(turn.outcome or "{}")
        return cls.of(turn, outcome.usage, model_id=outcome.model_id, request_charge=turn.request_charge)

    def consumed(self) -> Consumed:
        """As the port shows it."""
        return Consumed(
            tenant_id=self.tenant_id,
            user_id=self.user_id,
            conversation_id=self.conversation_id,
            turn_id=self.turn_id,
            model_id=self.model_id,
            usage=Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens),
            at=datetime_of(self.at_us),
        )

    @property
    def partition(self) -> Partition:
        return self.tenant_id, self.day

    def json(self) -> documents.Json:
        json: documents.Json = msgspec.to_builtins(self)
        json.pop("_etag", None)
        return json


class Journal(Protocol):
    """Rows that are gathered, where a crash does not reach them. All may raise OSError."""

    def read(self) -> list[UsageRow]:
        """Those that were left."""

    def add(self, row: UsageRow) -> None: ...

    def keep_only(self, rows: Iterable[UsageRow]) -> None:
        """Those that have not been written yet."""

    def close(self) -> None: ...


class UsageRows:
    """The rows. ``flush_s``: how long they are gathered; 0 writes each at once."""

    def __init__(self, connection: Connection, *, flush_s: float, journal: Journal | None = None) -> None:
        self._connection = connection
        self._flush_s = flush_s
        self._journal = journal
        self._rows: dict[str, UsageRow] = {}
        self._written: Recent[str, bool] = Recent(_WRITTEN)
        self._flushing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        for row in () if journal is None else journal.read():
            self._rows[row.id] = row

    async def add(self, row: UsageRow) -> None:
        """Never fails: what cannot be written is tried again with the next ones."""
        self._rows[row.id] = row
        if self._journal is not None:
            try:
                self._journal.add(row)
            except (OSError, ValueError) as error:
                self._not_kept(error)
        if not self._flush_s or len(self._rows) >= MAX_BUFFERED:
            await self._try_to_flush()
        if self._rows and (self._timer is None or self._timer.done()):
            # In a fresh context: the request that this comes from must not take it along when it ends.
            self._timer = asyncio.create_task(self._later(), context=contextvars.Context())

    async def charge_of(self, turn: TurnDocument) -> float | None:
        """What an ended turn was charged in all; None where no row says so."""
        if (row := self._rows.get(ulid_of(turn.turn_id))) is not None:
            return row.request_charge
        partition = turn.tenant_id, day_of(turn.finished_us or 0)
        found = await self._connection.read(USAGE, partition, ulid_of(turn.turn_id))
        return None if found is None else found.get("requestCharge")

    async def page(self, tenant_id: str, day: str, *, after: UsageCursor | None, limit: int) -> Page[Consumed]:
        """The tenant's rows of a day, by id: those that have been written, and what is gathered here."""
        await self._try_to_flush()
        where, parameters = ("", {}) if after is None else ("c.id > @after", {"@after": after.row_id})
        found = await self._connection.query(
            USAGE, (tenant_id, day), where, parameters, order="id ASC", limit=limit + 1
        )
        rows = [msgspec.convert(item, UsageRow) for item in found]
        more = None
        if len(rows) > limit:
            more = encode_cursor(UsageCursor(day=day, at_us=0, row_id=rows[limit - 1].id))
        return Page(items=tuple(row.consumed() for row in rows[:limit]), next_cursor=more)

    def has(self, turn_id: str) -> bool:
        """Whether this replica knows that the row of a turn is there, or is going to write it."""
        ulid = ulid_of(turn_id)
        return ulid in self._rows or self._written.get(ulid) is not None

    async def repair(self, turns: Iterable[TurnDocument]) -> int:
        """Writes the rows of ended turns that have none; returns how many."""
        return await self.add_missing([UsageRow.of_ended(turn) for turn in turns if not self.has(turn.turn_id)])

    async def add_missing(self, rows: Iterable[UsageRow]) -> int:
        """Writes those that are not there yet; returns how many."""
        added = 0
        for partition, together in _by_partition(rows).items():
            for start in range(0, len(together), _BATCH_ROWS):
                chunk = together[start : start + _BATCH_ROWS]
                names = {f"@id{number}": row.id for number, row in enumerate(chunk)}
                where = f"c.id IN ({', '.join(names)})"
                found = await self._connection.query(USAGE, partition, where, names, select="c.id", limit=len(chunk))
                there = {str(item["id"]) for item in found}
                for row in chunk:
                    if row.id not in there:
                        added += await self._create(row)
                    self._written.put(row.id, True)
        return added

    async def _create(self, row: UsageRow) -> bool:
        try:
            await self._connection.write(USAGE, row.partition, [Operation("create", row.id, row.json())])
        except Refused:
            return False  # it has come meanwhile, and knows better
        return True

    async def flush(self) -> None:
        """Writes all that have been gathered. May raise a retryable error; then they are still there."""
        async with self._flushing:
            for partition, rows in _by_partition(self._rows.values()).items():
                for start in range(0, len(rows), _BATCH_ROWS):
                    chunk = rows[start : start + _BATCH_ROWS]
                    operations = [Operation("upsert", row.id, row.json()) for row in chunk]
                    await self._connection.write(USAGE, partition, operations)
                    for row in chunk:
                        self._written.put(row.id, True)
                        if self._rows.get(row.id) is row:
                            del self._rows[row.id]
            if self._journal is not None:
                try:
                    self._journal.keep_only(self._rows.values())
                except (OSError, ValueError) as error:
                    self._not_kept(error)

    async def close(self) -> None:
        """Writes what there is; what cannot be written stays in the journal."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
        await self._try_to_flush()
        if self._journal is not None:
            try:
                self._journal.close()
            except OSError as error:
                self._not_kept(error)

    async def _later(self) -> None:
        while self._rows:
            await asyncio.sleep(self._flush_s or _AGAIN_S)
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush()
        except Exception as error:  # nothing may end the task that tries again
            _log.warning("usage not written yet", rows=len(self._rows), reason=str(error))

    def _not_kept(self, error: Exception) -> None:
        """The rows are still here, and where a crash takes them along the projection makes up for them."""
        _log.warning("usage is not kept where a crash does not reach it", rows=len(self._rows), reason=str(error))


def _by_partition(rows: Iterable[UsageRow]) -> dict[Partition, list[UsageRow]]:
    found: dict[Partition, list[UsageRow]] = {}
    for row in rows:
        found.setdefault(row.partition, []).append(row)
    return found


def day_of(at_us: int) -> str:
    return datetime_of(at_us).astimezone(UTC).date().isoformat()


_log = logger("storage")
