"""Runs one cell: the turns of a case under a configuration, each again where it fails in a way that may pass."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

from serve_app.domain.usage import Usage
from serve_app.errors import (
    Conflict,
    DeadlineExceeded,
    Gone,
    InvalidInput,
    NotFound,
    NotPermitted,
    ParleyError,
    TooLarge,
)
from serve_app.evaluation.cases import Case
from serve_app.evaluation.results import CaseResult, CellKey, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta
from serve_app.evaluation.trial_turns import Asking, Question, new_turn, questions, turn_result
from serve_app.turns.trials import TrialEnd, TrialGraph

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 20.0

MAX_LEFT_OVER = 100
"""How many turns of runners before this one may be found that ran out of time with them."""
_THIS_CASE = (InvalidInput, NotFound, NotPermitted, TooLarge, Conflict, Gone)
"""What a case asks for cannot be had, and no other case suffers by it. Any other failure is the graph's."""


class CellRunner:
    """The same wherever it runs: beside the graph, before a handle, or in many processes."""

    def __init__(
        self,
        graph: TrialGraph,
        asking: Asking,
        configurations: Mapping[str, ConfigurationMeta],
        attempts: int,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self._graph = graph
        self._asking = asking
        self._configurations = configurations
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._began = time.time()

    async def run(self, case: Case, cell: CellKey, earlier_attempts: int = 0) -> CaseResult:
        """What came of it. ``earlier_attempts`` have been made before, and are not looked at again.

        Raises ParleyError where the graph takes no turns; a turn that fails is a result.
        """
        turns: list[TurnResult] = []
        most, retried = 1, Usage()
        for question in questions(case, self._asking.mode):
            turn, attempts, lost = await self._ask(case, cell, question, turns, earlier_attempts)
            turns.append(turn)
            retried += lost
            most = max(most, attempts)
            if turn.state != "completed":
                break
        return CaseResult(
            key=cell,
            turns=tuple(turns),
            tags=case.tags,
            attempts=earlier_attempts + most,
            retried=retried,
            finished_at=time.time(),
        )

    async def _ask(
        self, case: Case, cell: CellKey, question: Question, turns: list[TurnResult], earlier_attempts: int
    ) -> tuple[TurnResult, int, Usage]:
        """The turn as it ended last, how many there were, and what those before it consumed."""
        configuration = self._configurations[cell.configuration]
        wait_s = self._first_wait_s
        counted, lost = 0, Usage()
        for number in range(self._attempts + MAX_LEFT_OVER):
            new = new_turn(self._asking, case, cell, configuration, question, turns, earlier_attempts + number)
            try:
                end = await self._graph.run(new)
            except _THIS_CASE as error:
                return _refused(question, error), number + 1, lost
            if not self._is_left_over(end):
                counted += 1
            if end.failure is None or not end.failure.retryable or counted >= self._attempts:
                break
            lost += end.turn.usage
            if counted:
                await asyncio.sleep(wait_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
                wait_s = min(wait_s * 2, MAX_WAIT_S)
        return turn_result(end), number + 1, lost

    def _is_left_over(self, end: TrialEnd) -> bool:
        """Whether the turn ran out of time because whoever ran it was stopped: that is no attempt at it."""
        began_before = end.turn.created_at.timestamp() < self._began
        return began_before and end.failure is not None and end.failure.code == DeadlineExceeded.code


def _refused(question: Question, error: ParleyError) -> TurnResult:
    return TurnResult(
        turn_id="",
        question=question.text,
        state="failed",
        error_code=error.code,
        error_message=error.message,
    )
