"""What was consumed: a row for each turn that has ended and for what came beside it, gathered for a while and written in batches.

A row bears its turn's id, so writing it twice is writing it once. What a crash takes with it, the projection makes up for from
the turns themselves; with a journal it is read again at the next start.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC
from typing import Protocol

import msgspec
from msgspec import Struct, field

from serve_app.domain.conversation import Page
from serve_app.domain.usage import Purpose, Usage
from serve_app.domain.usage import UsageRow as Consumed
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import TurnDocument
from serve_app.storage.cosmos.layout import USAGE, Partition, turn_key, ulid_of
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.recent import Recent
from serve_app.storage.pages import UsageCursor, encode_cursor
from serve_app.storage.rules import datetime_of, to_us
from serve_app.storage.usage_rows import rows_by_model
from serve_app.telemetry import logger

MAX_BUFFERED = 10_000
"""Rows gathered at most; who adds more waits for them to be written."""
_BATCH_ROWS = 100
_WRITTEN = 50_000
_AGAIN_S = 1.0
"""How long rows wait that should have been written at once."""


class UsageRow(Struct, frozen=True, kw_only=True, rename="camel"):
    """A row as it lies in the database. ``at_us`` is when the turn ended, ``day`` the day of that (UTC)."""

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
    purpose: Purpose = "turn"
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    estimated: bool = False
    request_charge: float | None = None
    etag: str = field(default="", name="_etag")

    @classmethod
    def of(cls, row: Consumed, request_charge: float | None = None) -> UsageRow:
        usage = row.usage
        at_us = to_us(row.at.timestamp())
        return cls(
            id=_id_of(row, at_us),
            tenant_id=row.tenant_id,
            day=day_of(at_us),
            user_id=row.user_id,
            conversation_id=row.conversation_id,
            turn_id=row.turn_id,
            model_id=row.model_id,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            at_us=at_us,
            purpose=row.purpose,
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_microusd=usage.cost_microusd,
            estimated=usage.estimated,
            request_charge=request_charge,
        )

    @classmethod
    def of_turn(cls, turn: TurnDocument, request_charge: float | None = None) -> list[UsageRow]:
        """Those of a turn that has ended, from what its document knows. The charge is in the turn's own."""
        outcome = documents.outcome_of(turn.outcome or "{}")
        key = turn_key(turn.partition, turn.id)
        at = datetime_of(turn.finished_us or 0)
        rows = rows_by_model(key, outcome.model_id, outcome.usage, outcome.earlier, at)
        return [cls.of(row, request_charge if number == 0 else None) for number, row in enumerate(rows)]

    def consumed(self) -> Consumed:
        """As the port shows it."""
        return Consumed(
            tenant_id=self.tenant_id,
            user_id=self.user_id,
            conversation_id=self.conversation_id,
            turn_id=self.turn_id,
            model_id=self.model_id,
            usage=Usage(
                input_tokens=self.input_tokens,
                output_tokens=self.output_tokens,
                cached_input_tokens=self.cached_input_tokens,
                reasoning_tokens=self.reasoning_tokens,
                cost_microusd=self.cost_microusd,
                estimated=self.estimated,
            ),
            at=datetime_of(self.at_us),
            purpose=self.purpose,
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
    """The rows. ``flush_s``: how long they are gathered; 0 writes each at once. ``on_rows`` hears where some were written."""

    def __init__(self, connection: Connection, *, flush_s: float, journal: Journal | None = None) -> None:
        self._connection = connection
        self._flush_s = flush_s
        self._journal = journal
        self._rows: dict[str, UsageRow] = {}
        self._written: Recent[str, bool] = Recent(_WRITTEN)
        self._flushing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        self.on_rows: Callable[[Partition], Awaitable[None]] = _nobody_listens
        for row in () if journal is None else journal.read():
            self._rows[row.id] = row

    async def add(self, rows: Iterable[UsageRow]) -> None:
        """Never fails: what cannot be written is tried again with the next ones."""
        for row in rows:
            self._rows[row.id] = row
            if self._journal is not None:
                try:
                    self._journal.add(row)
                except (OSError, ValueError) as error:
                    self._not_kept(error)
        if not self._flush_s or len(self._rows) >= MAX_BUFFERED:
            await self.try_to_flush()
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
        await self.try_to_flush()
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
        missing = [turn for turn in turns if not self.has(turn.turn_id)]
        return await self.add_missing([row for turn in missing for row in UsageRow.of_turn(turn, turn.request_charge)])

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
                await self.on_rows(partition)  # also where all are there: whoever wrote them may have come no further
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
                    await self.on_rows(partition)
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
        await self.try_to_flush()
        if self._journal is not None:
            try:
                self._journal.close()
            except OSError as error:
                self._not_kept(error)

    async def _later(self) -> None:
        while self._rows:
            await asyncio.sleep(self._flush_s or _AGAIN_S)
            await self.try_to_flush()

    async def try_to_flush(self) -> None:
        """The same, and never fails."""
        try:
            await self.flush()
        except Exception as error:  # nothing may end the task that tries again
            _log.warning("usage not written yet", rows=len(self._rows), reason=str(error))

    def _not_kept(self, error: Exception) -> None:
        """The rows are still here, and where a crash takes them along the projection makes up for them."""
        _log.warning("usage is not kept where a crash does not reach it", rows=len(self._rows), reason=str(error))


async def _nobody_listens(_partition: Partition) -> None: ...


def _by_partition(rows: Iterable[UsageRow]) -> dict[Partition, list[UsageRow]]:
    found: dict[Partition, list[UsageRow]] = {}
    for row in rows:
        found.setdefault(row.partition, []).append(row)
    return found


def _id_of(row: Consumed, at_us: int) -> str:
    """A turn's own row is called after it, so that it is found by the turn alone."""
    ulid = ulid_of(row.turn_id)
    if row.purpose == "turn":
        return ulid
    model = hashlib.sha256((row.model_id or "").encode()).hexdigest()[:16]
    return f"{ulid}-{row.purpose}-{model}-{at_us}"


def day_of(at_us: int) -> str:
    return datetime_of(at_us).astimezone(UTC).date().isoformat()


_log = logger("storage")
