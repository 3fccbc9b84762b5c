"""What a turn consumed."""

from __future__ import annotations

from msgspec import Struct


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them, and their price.

    ``cached_input_tokens`` and ``reasoning_tokens`` are contained in the counts of input and output. ``estimated``: the provider
    gave no count (a call that was cancelled or broke off), so that some of it is our own. ``cost_microusd`` are millionths of
    a US dollar at the prices of the models file; 0 where it names none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_microusd=self.cost_microusd + other.cost_microusd,
            estimated=self.estimated or other.estimated,
        )
