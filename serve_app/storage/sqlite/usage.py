"""The SQL of what was consumed: rows by tenant and instant, and their sums by day, user and model."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import apsw

from serve_app.domain.conversation import Page
from serve_app.domain.usage import Grouping, Usage, UsageRow, UsageSum, UsageSums
from serve_app.storage.pages import SumsCursor, UsageCursor, encode_cursor, invalid_cursor
from serve_app.storage.rules import datetime_of, to_us
from serve_app.storage.usage_rows import check_grouping, days, sums_page

_FIELDS = (
    "tenant_id, user_id, conversation_id, turn_id, model_id, input_tokens, output_tokens, at_us, "
    "purpose, cached_input_tokens, reasoning_tokens, cost_microusd, estimated"
)
COLUMNS = f"id, {_FIELDS}"

_INSERT = f"INSERT INTO usage ({_FIELDS}) "
_VALUES = "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
# By the tenant and the instant first: that is what there is an index of.
_UNLESS_THERE = (
    "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 "
    "WHERE NOT EXISTS (SELECT 1 FROM usage WHERE tenant_id = ?1 AND at_us = ?8 AND turn_id = ?4 AND purpose = ?9 "
    "AND model_id IS ?5)"
)
_DAY_US = 86_400_000_000
_ADD_UP = (
    "INSERT INTO usage_sum VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET turns = turns + excluded.turns, "
    "input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens, "
    "cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens, "
    "reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens, "
    "cost_microusd = cost_microusd + excluded.cost_microusd, estimated = estimated + excluded.estimated"
)
_SUMS = (
    "coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cached_input_tokens), 0), "
    "coalesce(sum(reasoning_tokens), 0), coalesce(sum(cost_microusd), 0), coalesce(max(estimated), 0)"
)
_EPOCH = date(1970, 1, 1)


def put(connection: apsw.Connection, rows: Iterable[UsageRow]) -> None:
    """Rows that are known to be new."""
    for row in rows:
        connection.execute(_INSERT + _VALUES, _values(row))
        _add_up(connection, row)


def add(connection: apsw.Connection, _now: float, rows: Iterable[UsageRow]) -> None:
    """Those that are not there yet."""
    for row in rows:
        connection.execute(_INSERT + _UNLESS_THERE, _values(row))
        if connection.changes():
            _add_up(connection, row)


def page(
    connection: apsw.Connection, tenant_id: str, day: date, *, after: UsageCursor | None, limit: int
) -> Page[UsageRow]:
    """The tenant's rows of a day, oldest first."""
    first_us, end_us = _instants(day, day)
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


def sums(
    connection: apsw.Connection,
    tenant_id: str,
    first: date,
    last: date,
    by: Grouping,
    *,
    user_id: str | None,
    after: SumsCursor | None,
    limit: int,
) -> UsageSums:
    """From the sums of days, but for conversations: those are added up from the rows of their user."""
    check_grouping(by, user_id)
    numbers = [_number(day) for day in days(first, last)]
    bindings: list[Any] = [tenant_id, *numbers]
    # Day by day where a user is meant, since the days come before the users in the key.
    where = f"tenant_id = ? AND day IN ({', '.join('?' * len(numbers))})" + (
        "" if user_id is None else " AND user_id = ?"
    )
    bindings += [] if user_id is None else [user_id]
    total: Any = connection.execute(
        f"SELECT coalesce(sum(turns), 0), {_SUMS} FROM usage_sum WHERE {where}",  # noqa: S608 - constants only
        bindings,
    ).fetchone()
    if by == "conversation":
        first_us, end_us = _instants(first, last)
        group, table, turns = "conversation_id", "usage", "sum(purpose = 'turn')"
        where, bindings = (
            "tenant_id = ? AND user_id = ? AND at_us >= ? AND at_us < ?",
            [tenant_id, user_id, first_us, end_us],
        )
    else:
        group, table, turns = {"day": "day", "user": "user_id", "model": "model_id"}[by], "usage_sum", "sum(turns)"
    if after is not None:
        where += f" AND {group} > ?"
        bindings.append(_number(_parsed(after.group)) if by == "day" else after.group)
    rows: list[Any] = connection.execute(
        f"SELECT {group}, {turns}, {_SUMS} FROM {table} WHERE {where} "  # noqa: S608 - constants only
        f"GROUP BY {group} ORDER BY {group} LIMIT ?",
        (*bindings, limit + 1),
    ).fetchall()
    found = [_sum(_day(row[0]) if by == "day" else row[0], row[1:]) for row in rows]
    return sums_page(found, _sum("", total), by, limit)


def usage_row(row: Any) -> UsageRow:
    """A row of ``COLUMNS``."""
    return UsageRow(
        tenant_id=row[1],
        user_id=row[2],
        conversation_id=row[3],
        turn_id=row[4],
        model_id=row[5],
        usage=Usage(
            input_tokens=row[6],
            output_tokens=row[7],
            cached_input_tokens=row[10],
            reasoning_tokens=row[11],
            cost_microusd=row[12],
            estimated=bool(row[13]),
        ),
        at=datetime_of(row[8]),
        purpose=row[9],
    )


def _values(row: UsageRow) -> tuple[Any, ...]:
    usage = row.usage
    return (
        row.tenant_id,
        row.user_id,
        row.conversation_id,
        row.turn_id,
        row.model_id,
        usage.input_tokens,
        usage.output_tokens,
        to_us(row.at.timestamp()),
        row.purpose,
        usage.cached_input_tokens,
        usage.reasoning_tokens,
        usage.cost_microusd,
        int(usage.estimated),
    )


def _add_up(connection: apsw.Connection, row: UsageRow) -> None:
    usage = row.usage
    connection.execute(
        _ADD_UP,
        (
            row.tenant_id,
            to_us(row.at.timestamp()) // _DAY_US,
            row.user_id,
            row.model_id or "",
            int(row.purpose == "turn"),
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.reasoning_tokens,
            usage.cost_microusd,
            int(usage.estimated),
        ),
    )


def _sum(group: str, row: Any) -> UsageSum:
    turns, input_tokens, output_tokens, cached, reasoning, cost, estimated = row
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cost_microusd=cost,
        estimated=bool(estimated),
    )
    return UsageSum(group=group, turns=turns, usage=usage)


def _instants(first: date, last: date) -> tuple[int, int]:
    """From the first day's midnight to the last one's end."""
    return _number(first) * _DAY_US, (_number(last) + 1) * _DAY_US


def _number(day: date) -> int:
    return (day - _EPOCH).days


def _parsed(day: str) -> date:
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise invalid_cursor() from None


def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).isoformat()
