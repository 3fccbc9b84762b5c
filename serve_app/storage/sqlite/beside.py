"""The conversations of a data folder, read beside whoever has it open: nothing is locked, nothing is written.

Each call sees one moment; between two calls the one who writes may have written.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import apsw

from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.domain.records import Record
from serve_app.errors import ConfigError
from serve_app.storage.rules import to_us
from serve_app.storage.sqlite import snapshots
from serve_app.storage.sqlite.connection import as_parley_error
from serve_app.storage.sqlite.conversations import UNLISTED
from serve_app.storage.sqlite.folder import DATABASE
from serve_app.storage.sqlite.reader import Readers
from serve_app.storage.sqlite.schema import MIGRATIONS
from serve_app.storage.sqlite.transfer import after, scan_records
from serve_app.storage.transfer import ConversationSnapshot

_LISTED = f"tenant_id IS NOT NULL AND archived != {UNLISTED}"


class SqliteBeside:
    """Made by :meth:`open`, let go by :meth:`close`. Conversations without activity since ``active_since`` are not listed; nor
    are those that no list shows. ``logs``: turns come with their logs, most of what there is."""

    def __init__(self, readers: Readers, active_since: datetime | None, logs: bool) -> None:
        self._readers = readers
        self._logs = logs
        self._since_us = 0 if active_since is None else to_us(active_since.timestamp())

    @classmethod
    async def open(cls, folder: Path, *, active_since: datetime | None = None, logs: bool = False) -> SqliteBeside:
        """Raises ConfigError where there is no database, or one of another version; ParleyError where it cannot be read."""
        database = folder / DATABASE
        if not database.is_file():
            raise ConfigError(
                f"Setting PARLEY_DATA_DIR: there is no database in {folder}, so there is nothing to read."
            )
        try:
            readers = Readers(database, max_queue=1_000, threads=1)
        except apsw.Error as error:
            raise as_parley_error(error) from error
        version = await readers.run(_version)
        if version != len(MIGRATIONS):
            await readers.close()
            raise ConfigError(
                f"The database in {folder} has format {version}, this version of Parley reads {len(MIGRATIONS)}; start the "
                "newer of the two on it once."
            )
        return cls(readers, active_since, logs)

    async def count(self) -> int:
        """How many conversations there are."""
        return await self._readers.run(_count, self._since_us)

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        """In the order they were made. Raises InvalidInput for a cursor this listing did not give."""
        return await self._readers.run(_scan, self._since_us, after(cursor), limit)

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        """Raises NotFound."""
        return await self._readers.run(snapshots.export, key, logs=self._logs)

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]:
        """Of all tenants and kinds. Raises InvalidInput for a cursor this listing did not give."""
        return await self._readers.run(scan_records, after(cursor), limit)

    async def close(self) -> None:
        await self._readers.close()


def _version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def _count(connection: apsw.Connection, since_us: int) -> int:
    row: Any = connection.execute(
        f"SELECT count(*) FROM conversation WHERE {_LISTED} AND updated_us >= ?",  # noqa: S608 - constants only
        (since_us,),
    ).fetchone()
    return int(row[0])


def _scan(connection: apsw.Connection, since_us: int, above: int, limit: int) -> Page[ConversationKey]:
    rows: list[Any] = connection.execute(
        "SELECT id, tenant_id, user_id, conversation_id FROM conversation "  # noqa: S608 - constants only
        f"WHERE id > ? AND {_LISTED} AND updated_us >= ? ORDER BY id LIMIT ?",
        (above, since_us, limit + 1),
    ).fetchall()
    items = tuple(ConversationKey(tenant_id=row[1], user_id=row[2], conversation_id=row[3]) for row in rows[:limit])
    return Page(items=items, next_cursor=str(rows[limit - 1][0]) if len(rows) > limit else None)
