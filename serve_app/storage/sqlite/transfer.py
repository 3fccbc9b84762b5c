"""The embedded store as one that can be copied from and to. ``snapshots`` has the conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.domain.records import Record
from serve_app.domain.usage import UsageRow
from serve_app.errors import InvalidInput
from serve_app.settings import StoreSettings
from serve_app.storage.sqlite import records, snapshots, usage
from serve_app.storage.sqlite.connection import as_parley_error, open_reader
from serve_app.storage.sqlite.folder import DATABASE
from serve_app.storage.sqlite.store import LOCK_WAIT_S, SqliteStore
from serve_app.storage.sqlite.usage import COLUMNS, usage_row
from serve_app.storage.sqlite.writer import Clock
from serve_app.storage.transfer import ConversationSnapshot, StoreCounts

_MOST = 2**62


class SqliteTransfer(SqliteStore):
    """Opened as the store itself, and like it the only process that writes."""

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: StoreSettings | None = None,
        *,
        clock: Clock = time.time,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> SqliteTransfer:
        return cast(SqliteTransfer, await super().open(folder, limits, clock=clock, lock_wait_s=lock_wait_s))

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        return await self._readers.run(_scan_conversations, after(cursor), limit)

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        return await self._readers.run(snapshots.export, key)

    async def import_conversation(self, snapshot: ConversationSnapshot) -> None:
        await self._writer.run(snapshots.restore, snapshot)

    async def scan_usage(self, *, cursor: str | None = None, limit: int = 1000) -> Page[UsageRow]:
        return await self._readers.run(_scan_usage, after(cursor), limit)

    async def import_usage(self, rows: Sequence[UsageRow]) -> None:
        await self._writer.run(usage.add, rows)

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]:
        return await self._readers.run(scan_records, after(cursor), limit)

    async def import_records(self, records: Sequence[Record]) -> None:
        await self._writer.run(_import_records, records)

    async def count_all(self) -> StoreCounts:
        return await self._readers.run(_count)


def after(cursor: str | None) -> int:
    """The row that a listing goes on behind."""
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or int(cursor) > _MOST:
        raise InvalidInput("The cursor is not one this listing gave; start again without it.")
    return int(cursor)


def _scan_conversations(connection: apsw.Connection, after: int, limit: int) -> Page[ConversationKey]:
    rows: list[Any] = connection.execute(
        "SELECT id, tenant_id, user_id, conversation_id FROM conversation WHERE id > ? AND tenant_id IS NOT NULL "
        "ORDER BY id LIMIT ?",
        (after, limit + 1),
    ).fetchall()
    items = tuple(ConversationKey(tenant_id=row[1], user_id=row[2], conversation_id=row[3]) for row in rows[:limit])
    return Page(items=items, next_cursor=_more(rows, limit))


def _scan_usage(connection: apsw.Connection, after: int, limit: int) -> Page[UsageRow]:
    rows: list[Any] = connection.execute(
        f"SELECT {COLUMNS} FROM usage WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants only
        (after, limit + 1),
    ).fetchall()
    return Page(items=tuple(usage_row(row) for row in rows[:limit]), next_cursor=_more(rows, limit))


def scan_records(connection: apsw.Connection, after: int, limit: int) -> Page[Record]:
    rows: list[Any] = connection.execute(
        "SELECT id, tenant_id, kind, record_id, body FROM record WHERE id > ? ORDER BY id LIMIT ?", (after, limit + 1)
    ).fetchall()
    items = tuple(
        Record(tenant_id=row[1], kind=row[2], record_id=row[3], body=row[4], etag=f"{row[0]:x}") for row in rows[:limit]
    )
    return Page(items=items, next_cursor=_more(rows, limit))


def _more(rows: Sequence[Any], limit: int) -> str | None:
    return str(rows[limit - 1][0]) if len(rows) > limit else None


def _import_records(connection: apsw.Connection, now: float, given: Sequence[Record]) -> None:
    for record in given:
        there: Any = connection.execute(
            "SELECT body FROM record WHERE tenant_id = ? AND kind = ? AND record_id = ?",
            (record.tenant_id, record.kind, record.record_id),
        ).fetchone()
        if there is None or there[0] != record.body:
            records.save(connection, now, record.tenant_id, record.kind, record.record_id, record.body, if_match=None)


def _count(connection: apsw.Connection) -> StoreCounts:
    def count(sql: str) -> int:
        row: Any = connection.execute(f"SELECT count(*) FROM {sql}").fetchone()  # noqa: S608 - constants only
        return int(row[0])

    kept = "conversation c ON c.id = conversation WHERE c.tenant_id IS NOT NULL"
    return StoreCounts(
        conversations=count("conversation WHERE tenant_id IS NOT NULL"),
        messages=count(f"message JOIN {kept}"),
        turns=count(f"turn JOIN {kept}"),
        usage=count("usage"),
        records=count("record"),
    )


def count_beside(folder: Path) -> StoreCounts | None:
    """What a folder's database has, whoever has it open; None where there is none. Raises ParleyError where it cannot be read."""
    database = folder / DATABASE
    if not database.is_file():
        return None
    try:
        connection = open_reader(database)
        try:
            return _count(connection)
        finally:
            connection.close()
    except apsw.Error as error:
        raise as_parley_error(error) from error
