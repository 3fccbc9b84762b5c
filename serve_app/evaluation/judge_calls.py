"""A judge's questions as turns of the graph: each is named by what is asked, so that one that was answered is not asked again,
whatever died in between."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.identity import Principal
from serve_app.domain.turns import GivenPrompt, NewTurn, Query
from serve_app.domain.usage import Usage
from serve_app.errors import Internal, Overloaded, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.evaluation.graders.judge_port import JudgeAnswer
from serve_app.turns.trials import TrialEnd, TrialFailure, TrialGraph, trial_key

VERDICT = "verdict"
"""What the schema of an answer is called at the provider."""
SHOWN = "A judge is asked for its verdict."
MAX_WAIT_S = 30.0
FIRST_WAIT_S = 0.5
MAX_NUMBERS = 100
"""Attempts of all runs together, before this one's are counted whoever made them."""


class TrialJudgeCalls:
    """Implements ``JudgeCalls`` over a graph's trials, for one run.

    ``principal`` owns the turns. A question that fails for a passing reason is asked again, ``attempts`` times in all; so is one
    for which the graph has no room, after the time it says.
    """

    def __init__(
        self, graph: TrialGraph, run_id: str, principal: Principal, *, timeout_s: float = 120.0, attempts: int = 3
    ) -> None:
        self._graph = graph
        self._run_id = run_id
        self._principal = principal
        self._timeout_s = timeout_s
        self._attempts = attempts

    async def ask(
        self,
        messages: tuple[ModelMessage, ...],
        *,
        model: str | None,
        schema: dict[str, Any],
        settings: ModelSettings,
        key: str,
    ) -> JudgeAnswer:
        """Raises ParleyError: what the graph or the last attempt failed with."""
        given = GivenPrompt(
            messages=messages,
            settings=settings,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": VERDICT, "strict": True, "schema": schema},
            },
        )
        query = Query(content=SHOWN, model_id=model, given=given)
        asked = hashlib.sha256(msgspec.json.encode(query, order="sorted")).hexdigest()
        usage, began, wait_s = Usage(), time.time(), FIRST_WAIT_S
        number, left = 1, self._attempts
        while True:
            try:
                end = await self._graph.run(self._turn(query, key, asked, number))
            except (Overloaded, QuotaExceeded) as error:
                failure: ParleyError = error  # the turn, if there is one, is found again by the same number
                left -= 1
            else:
                if end.failure is None and end.turn.state == "completed":
                    return _answer(end, usage + end.turn.usage)
                failure = _failure(end)
                number += 1
                if end.turn.created_at.timestamp() < began and number <= MAX_NUMBERS:
                    continue  # it failed an earlier run; this one has its own attempts
                usage += end.turn.usage
                left -= 1
            if not failure.retryable or left <= 0:
                raise failure
            await asyncio.sleep(min(MAX_WAIT_S, failure.retry_after_s or wait_s))
            wait_s *= 2

    def _turn(self, query: Query, key: str, asked: str, number: int) -> NewTurn:
        turn_key = trial_key(self._principal, self._run_id, "judge", key, asked, number)
        now = time.time()
        return NewTurn(
            key=turn_key,
            principal=self._principal,
            query=query,
            created_at=datetime.fromtimestamp(now, UTC),
            deadline=now + self._timeout_s,
            client_turn_id=turn_key.turn_id,
            priority="batch",
            opens=True,
        )


def _answer(end: TrialEnd, usage: Usage) -> JudgeAnswer:
    model = next((step.model_id for step in reversed(end.turn.steps)), "")
    return JudgeAnswer(text=end.message.text if end.message is not None else "", usage=usage, model_id=model)


def _failure(end: TrialEnd) -> ParleyError:
    failure = end.failure or TrialFailure(code=Internal.code, message=f"The judge's turn was {end.turn.state}.")
    return UpstreamFailed(f"The judge gave no answer ({failure.code}): {failure.message}", failure.retryable)
