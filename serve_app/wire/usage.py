"""What was consumed, as HTTP answers it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.usage import Grouping, Usage, UsageSum, UsageSums

MICROUSD = 1_000_000


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class UsageView(_View):
    """Tokens both ways; those cached and those of reasoning are contained in them. `cost_usd` is at the prices of the models file
    when it was consumed, 0 where it named none. `estimated`: not all was counted by the provider.
    """

    input_tokens: Annotated[int, Field(examples=[812])]
    output_tokens: Annotated[int, Field(examples=[64])]
    cached_input_tokens: Annotated[int, Field(examples=[512])] = 0
    reasoning_tokens: Annotated[int, Field(examples=[0])] = 0
    cost_usd: Annotated[float, Field(examples=[0.00127])] = 0.0
    estimated: bool = False

    @classmethod
    def of(cls, usage: Usage) -> UsageView:
        return cls(**usage_fields(usage))


class _Counted(_View):
    turns: Annotated[int, Field(examples=[12])]


class _Grouped(_View):
    group: Annotated[str | None, Field(examples=["2026-11-02"])]


class UsageTotalView(UsageView, _Counted):
    """What all groups add up to."""


class UsageSumView(UsageTotalView, _Grouped):
    """`group` is a day (UTC), or the id of a user, a model or a conversation; null for a model that nobody knows. `turns` are
    those that ended. Titles are contained in the tokens and the cost.
    """

    @classmethod
    def of_sum(cls, found: UsageSum) -> UsageSumView:
        return cls(group=found.group or None, turns=found.turns, **usage_fields(found.usage))


class UsageReport(_View):
    """What was consumed from one day to another, both included, by group in the order of their names; `total` is of all groups
    of all pages. Of today some may be missing. `user_id` is null where all users of the tenant are added up.
    """

    tenant_id: Annotated[str, Field(examples=["contoso"])]
    user_id: Annotated[str | None, Field(examples=["ana"])]
    first_day: date
    last_day: date
    group_by: Literal["day", "user", "model", "conversation"]
    items: list[UsageSumView]
    total: UsageTotalView
    next_cursor: Annotated[str | None, Field(examples=[None])]

    @classmethod
    def of(
        cls, tenant_id: str, user_id: str | None, days: tuple[date, date], by: Grouping, sums: UsageSums
    ) -> UsageReport:
        return cls(
            tenant_id=tenant_id,
            user_id=user_id,
            first_day=days[0],
            last_day=days[1],
            group_by=by,
            items=[UsageSumView.of_sum(one) for one in sums.items],
            total=UsageTotalView(turns=sums.total.turns, **usage_fields(sums.total.usage)),
            next_cursor=sums.next_cursor,
        )


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The fields of ``UsageView``."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": usage.cost_microusd / MICROUSD,
        "estimated": usage.estimated,
    }
