"""What model calls consumed, and what that cost."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Purpose = Literal["turn", "steps", "title"]
"""What a row of usage is for: a turn, or of a turn those steps that another model answered than the one that ended it; making
the title of a conversation."""

Grouping = Literal["day", "user", "model", "conversation"]


class TokenCounts(Struct, frozen=True, kw_only=True):
    """What clients are told with an answer: these two, and never more, since they may have been told so exactly."""

    input_tokens: int = 0
    output_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens as the provider counted them, and their price.

    ``cached_input_tokens`` and ``reasoning_tokens`` are contained in the counts of input and output. ``estimated``: the provider
    gave no count (a call that was cancelled or broke off), so that some of it is our own. ``cost_microusd`` are millionths of
    a US dollar at the prices the models file had when it was consumed; 0 where it named none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    estimated: bool = False

    @property
    def tokens(self) -> TokenCounts:
        return TokenCounts(input_tokens=self.input_tokens, output_tokens=self.output_tokens)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_microusd=self.cost_microusd + other.cost_microusd,
            estimated=self.estimated or other.estimated,
        )

    def __sub__(self, other: Usage) -> Usage:
        """What is left without a part of it."""
        return Usage(
            input_tokens=max(0, self.input_tokens - other.input_tokens),
            output_tokens=max(0, self.output_tokens - other.output_tokens),
            cached_input_tokens=max(0, self.cached_input_tokens - other.cached_input_tokens),
            reasoning_tokens=max(0, self.reasoning_tokens - other.reasoning_tokens),
            cost_microusd=max(0, self.cost_microusd - other.cost_microusd),
            estimated=self.estimated,
        )


class Price(Struct, frozen=True, kw_only=True):
    """US dollars per million tokens, which are millionths of a dollar per token."""

    input: float
    output: float
    cached_input: float

    def cost_microusd(self, usage: Usage) -> int:
        """What the tokens cost. Thinking is output."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        return round(
            (usage.input_tokens - cached) * self.input + cached * self.cached_input + usage.output_tokens * self.output
        )


class ModelUsage(Struct, frozen=True, kw_only=True):
    """What one model consumed."""

    model_id: str | None
    usage: Usage


class UsageRow(Struct, frozen=True, kw_only=True):
    """What one turn, or the title of its conversation, consumed of one model. It outlives the conversation.

    There is one for each turn, purpose and model; ``at`` is when it ended. A title that is made again has one more.
    """

    tenant_id: str
    user_id: str
    conversation_id: str
    turn_id: str
    model_id: str | None
    usage: Usage
    at: datetime
    purpose: Purpose = "turn"


class UsageSum(Struct, frozen=True, kw_only=True):
    """What rows add up to. ``group`` is a day (``2026-11-02``), or the id of a user, a model or a conversation; empty for a model
    that nobody knows. ``turns`` counts turns that ended; ``usage.estimated`` says that some of it is."""

    group: str
    turns: int
    usage: Usage


class UsageSums(Struct, frozen=True, kw_only=True):
    """A page of sums by group, and what all groups of all pages add up to."""

    items: tuple[UsageSum, ...]
    total: UsageSum
    next_cursor: str | None = None
