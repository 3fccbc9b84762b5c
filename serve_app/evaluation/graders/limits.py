"""What an answer took: time, money, tokens. Within the limit the score is 1; beyond it falls, to a half at twice the limit."""

from __future__ import annotations

from serve_app.domain.usage import Usage
from serve_app.evaluation.graders.config import CostConfig, LatencyConfig, TokensConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade

_MICROUSD = 1_000_000


class LatencyGrader:
    """Of the last turn."""

    pairwise = False

    def __init__(self, config: LatencyConfig) -> None:
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        turn = subject.result.last
        if failed_turn(subject) is not None:
            return self._verdicts.ungraded("The turn failed: how long that took says nothing.")
        took_ms = turn.total_ms if self._config.of == "total" else turn.first_delta_ms
        if took_ms is None:
            return self._verdicts.ungraded("There was no text, so there was no first piece of it.")
        took_ms = max(0, took_ms - turn.queued_ms)
        limit_ms = self._config.limit_ms
        what = "It took" if self._config.of == "total" else "Its first text came after"
        return self._verdicts.scored(
            _within(took_ms, limit_ms), f"{what} {took_ms:,} ms of {limit_ms:,} ms.", {"ms": took_ms}
        )


class CostGrader:
    """Of the case: all its turns."""

    pairwise = False

    def __init__(self, config: CostConfig) -> None:
        self.name = config.name
        self._limit_usd = config.limit_usd
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        if failed_turn(subject) is not None:
            return self._verdicts.ungraded("The turn failed: what that cost says nothing.")
        usage = subject.result.usage
        if not usage.cost_microusd and (usage.input_tokens or usage.output_tokens):
            return self._verdicts.ungraded("The models file has no price for the model.")
        cost_usd = usage.cost_microusd / _MICROUSD
        return self._verdicts.scored(
            _within(cost_usd, self._limit_usd), f"It cost ${cost_usd:.6f} of ${self._limit_usd:.6f}.", {"usd": cost_usd}
        )


class TokensGrader:
    """Of the case: all its turns."""

    pairwise = False

    def __init__(self, config: TokensConfig) -> None:
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        if failed_turn(subject) is not None:
            return self._verdicts.ungraded("The turn failed: how many tokens that took says nothing.")
        tokens = self._tokens(subject.result.usage)
        limit = self._config.limit
        return self._verdicts.scored(
            _within(tokens, limit), f"It took {tokens:,} of {limit:,} tokens.", {"tokens": tokens}
        )

    def _tokens(self, usage: Usage) -> int:
        if self._config.of == "input":
            return usage.input_tokens
        return usage.output_tokens + (usage.input_tokens if self._config.of == "total" else 0)


def _within(took: float, limit: float) -> float:
    return 1.0 if took <= limit else limit / took
