"""The SQL of what turns consumed: one row for each that has ended, by tenant and instant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import apsw

from serve_app.domain.conversation import Page
from serve_app.domain.usage import Usage
from serve_app.storage.pages import UsageCursor, encode_cursor
from serve_app.storage.rules import datetime_of, to_us
from serve_app.storage.transfer import UsageRow

COLUMNS = "id, tenant_id, user_id, conversation_id, turn_id, model_id, input_tokens, output_tokens, at_us"


def page(
    connection: apsw.Connection, tenant_id: str, day: date, *, after: UsageCursor | None, limit: int
) -> Page[UsageRow]:
    """The tenant's rows of a day, oldest first."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    first_us, end_us = to_us(begin.timestamp()), to_us((begin + timedelta(days=1)).timestamp())
    from_us, from_id = (first_us, 0) if after is None else (after.at_us, int(after.row_id))
    rows: list[Any] = connection.execute(
        f"SELECT {COLUMNS} FROM usage WHERE tenant_id = ? AND at_us >= ? AND at_us < ? "  # noqa: S608 - constants only
        "AND (at_us, id) > (?, ?) ORDER BY at_us, id LIMIT ?",
        (tenant_id, max(from_us, first_us), end_us, from_us, from_id, limit + 1),
    ).fetchall()
    more = None
    if len(rows) > limit:
        last = rows[limit - 1]
        more = encode_cursor(UsageCursor(day=day.isoformat(), at_us=last[8], row_id=str(last[0])))
    return Page(items=tuple(usage_row(row) for row in rows[:limit]), next_cursor=more)


def usage_row(row: Any) -> UsageRow:
    """A row of ``COLUMNS``."""
    return UsageRow(
        tenant_id=row[1],
        user_id=row[2],
        conversation_id=row[3],
        turn_id=row[4],
        model_id=row[5],
        usage=Usage(input_tokens=row[6], output_tokens=row[7]),
        at=datetime_of(row[8]),
    )
