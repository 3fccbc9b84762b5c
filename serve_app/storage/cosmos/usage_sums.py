"""What rows of usage add up to, over days.

A day that is over does not change any more: what it adds up to by user and model is kept in ``jobs``, one document or a few for
each day, so that a quarter of a tenant's year is one query however many turns it had. Rows that come late after all (made up for,
copied from another store) drop what was kept. One user's rows are found by an index, and added up anew each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

import msgspec
from msgspec import Struct

from serve_app.domain.usage import Grouping, Usage, UsageSums
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.layout import JOBS, USAGE, Partition
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.storage.pages import SumsCursor
from serve_app.storage.usage_rows import Sums, check_grouping, days

KIND = "usage-sums"
KEEP_AFTER_S = 3_600.0
"""How long after its end a day is taken to have all its rows: what replicas gather has been written long before."""
KEPT_S = 30 * 86_400
"""How long sums are kept before they are made anew."""
_EARLIER_S = 600.0
"""Clocks of replicas may differ by as much."""
_AT_ONCE = 8
_PAGE_ROWS = 1_000
_PART_ENTRIES = 4_000
_MOST_PARTS = 10_000


class _Row(Struct, frozen=True, rename="camel"):
    """What is read of a row."""

    id: str
    user_id: str
    conversation_id: str
    model_id: str | None = None
    purpose: str = "turn"
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    estimated: bool = False

    @property
    def usage(self) -> Usage:
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_microusd=self.cost_microusd,
            estimated=self.estimated,
        )


_SELECTED = ", ".join(f"c.{field.encode_name}" for field in msgspec.structs.fields(_Row))


class _Entry(Struct, frozen=True, array_like=True):
    """What one user consumed of one model on a day."""

    user_id: str
    model_id: str
    turns: int
    usage: Usage


class UsageDays:
    """``clock`` gives Unix seconds."""

    def __init__(self, connection: Connection, rows: UsageRows, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._rows = rows
        self._clock = clock
        rows.on_rows = self.drop_if_over

    async def sums(
        self,
        tenant_id: str,
        first: date,
        last: date,
        by: Grouping,
        *,
        user_id: str | None,
        after: SumsCursor | None,
        limit: int,
    ) -> UsageSums:
        check_grouping(by, user_id)
        asked = days(first, last)
        await self._rows.try_to_flush()
        sums = Sums()
        if user_id is not None:
            for day, rows in await self._rows_of(tenant_id, asked, user_id):
                for row in rows:
                    group = {"day": day.isoformat(), "user": row.user_id, "model": row.model_id or ""}
                    sums.add(group.get(by, row.conversation_id), int(row.purpose == "turn"), row.usage)
            return sums.page(by, after=after, limit=limit)
        for day, entries in await self._days_of(tenant_id, asked):
            for entry in entries:
                group = {"day": day.isoformat(), "user": entry.user_id, "model": entry.model_id}
                sums.add(group[by], entry.turns, entry.usage)
        return sums.page(by, after=after, limit=limit)

    async def drop_if_over(self, partition: Partition) -> None:
        """Rows have been written of a day: what was kept of it, where anything may have been, is not all any more."""
        tenant_id, day = partition
        if self._is_over(date.fromisoformat(day), margin_s=KEEP_AFTER_S - _EARLIER_S):
            with contextlib.suppress(Refused):  # there is none
                await self._connection.write(JOBS, (tenant_id, KIND), [Operation("delete", _name(day, 0))])

    async def _days_of(self, tenant_id: str, asked: list[date]) -> list[tuple[date, list[_Entry]]]:
        kept = await self._kept(tenant_id, asked)
        missing = [day for day in asked if day not in kept and day <= self._today()]
        for day, rows in await self._rows_of(tenant_id, missing, None):
            kept[day] = _entries(rows)
            if self._is_over(day, margin_s=KEEP_AFTER_S):
                await self._keep(tenant_id, day, kept[day])
        return sorted(kept.items())

    async def _kept(self, tenant_id: str, asked: list[date]) -> dict[date, list[_Entry]]:
        """The days whose sums are all there."""
        found = await self._connection.query(
            JOBS,
            (tenant_id, KIND),
            "c.id >= @first AND c.id <= @last",
            {"@first": _name(asked[0].isoformat(), 0), "@last": _name(asked[-1].isoformat(), _MOST_PARTS)},
            limit=_MOST_PARTS,
        )
        parts: defaultdict[str, list[documents.Json]] = defaultdict(list)
        for item in found:
            parts[str(item["day"])].append(item)
        whole = {}
        for day, items in parts.items():
            first = next((item for item in items if item["id"] == _name(day, 0)), None)
            if first is not None and sum(item["stamp"] == first["stamp"] for item in items) == first["parts"]:
                bodies = [item["body"] for item in items if item["stamp"] == first["stamp"]]
                entries = [entry for body in bodies for entry in msgspec.json.decode(body, type=list[_Entry])]
                whole[date.fromisoformat(day)] = entries
        return whole

    async def _keep(self, tenant_id: str, day: date, entries: list[_Entry]) -> None:
        name, stamp = day.isoformat(), f"{self._clock():.6f}"
        parts = [entries[at : at + _PART_ENTRIES] for at in range(0, len(entries), _PART_ENTRIES)] or [[]]
        for number, part in reversed(list(enumerate(parts))):  # the first last: with it they count
            body: documents.Json = {
                "id": _name(name, number),
                "tenantId": tenant_id,
                "kind": KIND,
                "day": name,
                "stamp": stamp,
                "parts": len(parts),
                "body": documents.json_of(part),
                "ttl": KEPT_S,
            }
            await self._connection.write(JOBS, (tenant_id, KIND), [Operation("upsert", body["id"], body)])

    async def _rows_of(
        self, tenant_id: str, asked: Iterable[date], user_id: str | None
    ) -> list[tuple[date, list[_Row]]]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(day: date) -> tuple[date, list[_Row]]:
            async with room:
                return day, await self._day(tenant_id, day, user_id)

        return list(await asyncio.gather(*(one(day) for day in asked if day <= self._today())))

    async def _day(self, tenant_id: str, day: date, user_id: str | None) -> list[_Row]:
        rows: list[_Row] = []
        where, values = ("", {}) if user_id is None else ("c.userId = @user AND ", {"@user": user_id})
        while True:
            found = await self._connection.query(
                USAGE,
                (tenant_id, day.isoformat()),
                f"{where}c.id > @after",
                {**values, "@after": rows[-1].id if rows else ""},
                order="id ASC",
                limit=_PAGE_ROWS,
                select=_SELECTED,
            )
            rows += [msgspec.convert(item, _Row) for item in found]
            if len(found) < _PAGE_ROWS:
                return rows

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _is_over(self, day: date, *, margin_s: float) -> bool:
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        return self._clock() - end.timestamp() >= margin_s


def _entries(rows: list[_Row]) -> list[_Entry]:
    sums: dict[tuple[str, str], tuple[int, Usage]] = {}
    for row in rows:
        key = row.user_id, row.model_id or ""
        turns, usage = sums.get(key, (0, Usage()))
        sums[key] = turns + int(row.purpose == "turn"), usage + row.usage
    return [_Entry(*key, turns, usage) for key, (turns, usage) in sorted(sums.items())]


def _name(day: str, part: int) -> str:
    return f"{day}-{part:05d}"
