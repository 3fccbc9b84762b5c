"""What the end of a turn leaves of usage, and the days over which usage is added up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import FinishTurn
from serve_app.domain.usage import Grouping, ModelUsage, Usage, UsageRow, UsageSum, UsageSums
from serve_app.errors import InvalidInput
from serve_app.storage.pages import SumsCursor, encode_cursor
from serve_app.storage.port import MAX_USAGE_DAYS


def rows_of(key: TurnKey, finish: FinishTurn, at: datetime) -> tuple[UsageRow, ...]:
    """One row for the turn, and one for each model that has answered some of its steps before the one that ended it."""
    return rows_by_model(key, finish.model_id, finish.usage, finish.earlier, at)


def rows_by_model(
    key: TurnKey, model_id: str | None, usage: Usage, earlier: Iterable[ModelUsage], at: datetime
) -> tuple[UsageRow, ...]:
    own = key.conversation
    others = []
    for one in earlier:
        usage -= one.usage
        others.append(
            UsageRow(
                tenant_id=own.tenant_id,
                user_id=own.user_id,
                conversation_id=own.conversation_id,
                turn_id=key.turn_id,
                model_id=one.model_id,
                usage=one.usage,
                at=at,
                purpose="steps",
            )
        )
    last = UsageRow(
        tenant_id=own.tenant_id,
        user_id=own.user_id,
        conversation_id=own.conversation_id,
        turn_id=key.turn_id,
        model_id=model_id,
        usage=usage,
        at=at,
    )
    return last, *others


def days(first: date, last: date) -> list[date]:
    """The days from one to the other, both included. Raises InvalidInput for none, and for more than may be added up."""
    count = (last - first).days + 1
    if count < 1:
        raise InvalidInput("The first day is after the last.")
    if count > MAX_USAGE_DAYS:
        raise InvalidInput(f"At most {MAX_USAGE_DAYS} days are added up at once; ask for fewer.")
    return [first + timedelta(days=number) for number in range(count)]


def check_grouping(by: Grouping, user_id: str | None) -> None:
    """Raises InvalidInput for conversations of everybody: a tenant may have any number."""
    if by == "conversation" and user_id is None:
        raise InvalidInput("Conversations are added up for one user only.")


def group_of(row: UsageRow, by: Grouping) -> str:
    """The name of the group a row belongs to."""
    match by:
        case "day":
            return row.at.date().isoformat()
        case "user":
            return row.user_id
        case "model":
            return row.model_id or ""
        case "conversation":
            return row.conversation_id


class Sums:
    """Adds up by group."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[int, Usage]] = {}

    def add(self, group: str, turns: int, usage: Usage) -> None:
        before = self._groups.get(group)
        self._groups[group] = (turns, usage) if before is None else (before[0] + turns, before[1] + usage)

    def page(self, by: Grouping, *, after: SumsCursor | None, limit: int) -> UsageSums:
        """By name, and what all of them add up to."""
        found = [
            UsageSum(group=group, turns=turns, usage=usage)
            for group, (turns, usage) in sorted(self._groups.items())
            if after is None or group > after.group
        ]
        total = UsageSum(
            group="",
            turns=sum(turns for turns, _ in self._groups.values()),
            usage=sum((usage for _, usage in self._groups.values()), Usage()),
        )
        return sums_page(found, total, by, limit)


def sums_page(found: list[UsageSum], total: UsageSum, by: Grouping, limit: int) -> UsageSums:
    """The first ``limit`` of those found, and the way to the others."""
    more = encode_cursor(SumsCursor(by=by, group=found[limit - 1].group)) if len(found) > limit else None
    return UsageSums(items=tuple(found[:limit]), total=total, next_cursor=more)
