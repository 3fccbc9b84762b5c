"""The SQL of configuration records."""

from __future__ import annotations

from typing import Any

import apsw

from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.storage.pages import RecordCursor, encode_cursor
from serve_app.storage.rules import no_record, stale_record

_KEY = "tenant_id = ? AND kind = ? AND record_id = ?"


def get(connection: apsw.Connection, tenant_id: str, kind: str, record_id: str) -> Record:
    found = _find(connection, tenant_id, kind, record_id)
    if found is None:
        raise no_record()
    return found


def save(
    connection: apsw.Connection,
    _now: float,
    tenant_id: str,
    kind: str,
    record_id: str,
    body: bytes,
    *,
    if_match: str | None,
) -> Record:
    kept = _find(connection, tenant_id, kind, record_id)
    if if_match is not None and if_match != ("" if kept is None else kept.etag):
        raise stale_record()
    # AUTOINCREMENT never gives a number twice, so an etag never fits a record that was deleted and made anew.
    if kept is not None:
        connection.execute(f"DELETE FROM record WHERE {_KEY}", (tenant_id, kind, record_id))  # noqa: S608 - constants only
    connection.execute(
        "INSERT INTO record (tenant_id, kind, record_id, body) VALUES (?, ?, ?, ?)", (tenant_id, kind, record_id, body)
    )
    return get(connection, tenant_id, kind, record_id)


def delete(connection: apsw.Connection, _now: float, tenant_id: str, kind: str, record_id: str) -> None:
    connection.execute(f"DELETE FROM record WHERE {_KEY}", (tenant_id, kind, record_id))  # noqa: S608 - constants only
    if not connection.changes():
        raise no_record()


def page(
    connection: apsw.Connection, tenant_id: str, kind: str, *, after: RecordCursor | None, limit: int
) -> Page[Record]:
    rows = connection.execute(
        "SELECT record_id, body, id FROM record WHERE tenant_id = ? AND kind = ? AND record_id > ? "
        "ORDER BY record_id LIMIT ?",
        (tenant_id, kind, "" if after is None else after.record_id, limit + 1),
    ).fetchall()
    items = tuple(_record(tenant_id, kind, row) for row in rows[:limit])
    more = encode_cursor(RecordCursor(record_id=items[-1].record_id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=more)


def _find(connection: apsw.Connection, tenant_id: str, kind: str, record_id: str) -> Record | None:
    row: Any = connection.execute(
        f"SELECT record_id, body, id FROM record WHERE {_KEY}",  # noqa: S608 - constants only
        (tenant_id, kind, record_id),
    ).fetchone()
    return None if row is None else _record(tenant_id, kind, row)


def _record(tenant_id: str, kind: str, row: Any) -> Record:
    return Record(tenant_id=tenant_id, kind=kind, record_id=row[0], body=row[1], etag=f"{row[2]:x}")
