"""The graph as a run uses it: never more turns at once than its pace allows, and asked again where it has no room."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from msgspec.structs import replace

from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, Turn
from serve_app.errors import Overloaded, ParleyError, QuotaExceeded, StageUnavailable
from serve_app.evaluation.concurrency import Pace
from serve_app.turns.trials import TrialEnd, TrialGraph

PATIENCE_S = 600.0
"""How long the graph may take no turn at all before the run gives up; what it has is kept."""
AWAY_S = 600.0
"""The same where what runs a turn is gone, or the turn comes to no end, whatever becomes of others meanwhile."""
_REFUSALS = frozenset({Overloaded.code, QuotaExceeded.code})


class PacedGraph:
    """Implements ``TrialGraph``. A turn's time counts from when there is room for it: what it waits here is not its fault."""

    def __init__(self, graph: TrialGraph, pace: Pace, patience_s: float = PATIENCE_S, away_s: float = AWAY_S) -> None:
        self._graph = graph
        self._pace = pace
        self._patience_s = patience_s
        self._away_s = away_s

    async def run(self, turn: NewTurn) -> TrialEnd:
        loop = asyncio.get_running_loop()
        timeout_s = turn.deadline - turn.created_at.timestamp()
        give_up, ended = loop.time() + self._patience_s, self._pace.ended
        away_until: float | None = None
        while True:
            async with self._pace.room():
                now = time.time()
                fresh = replace(turn, created_at=datetime.fromtimestamp(now, UTC), deadline=now + timeout_s)
                try:
                    end = await self._graph.run(fresh)
                except StageUnavailable as error:
                    # The turn is found as it is then. That others get through does not help one that never ends.
                    away_until = away_until or loop.time() + self._away_s
                    if not error.retryable or loop.time() >= away_until:
                        raise
                    self._pace.refused(error.retry_after_s)
                    continue
                except (Overloaded, QuotaExceeded) as error:
                    if not error.retryable:
                        raise
                    away_until = None
                    if self._pace.ended != ended:  # others get through
                        give_up, ended = loop.time() + self._patience_s, self._pace.ended
                    if loop.time() >= give_up:
                        raise _gave_up(error, self._patience_s) from error
                    self._pace.refused(error.retry_after_s)
                    continue
            if end.failure is not None and end.failure.code in _REFUSALS:
                self._pace.refused()
            else:
                self._pace.went_well(_delays(end.turn))
            return end

    async def catalog(self) -> ModelCatalog:
        return await self._graph.catalog()

    async def tools_for(self, principal: Principal) -> ToolSet:
        return await self._graph.tools_for(principal)

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        return await self._graph.prompts()

    async def aclose(self) -> None:
        await self._graph.aclose()


def _delays(turn: Turn) -> dict[str, float]:
    """What the turn waited for: the graph, by all its time that is neither the model's nor the tools'; and its models, each by
    the longest time to the first piece of its answers."""
    timings = turn.timings_ms
    own = timings.get("total", 0) - timings.get("model", 0) - timings.get("tools", 0)
    delays = {"": float(max(0, own))}
    for step in turn.steps:
        if step.first_delta_ms is not None:
            delays[step.model_id] = max(delays.get(step.model_id, 0.0), float(step.first_delta_ms))
    return delays


def _gave_up(error: ParleyError, patience_s: float) -> ParleyError:
    return Overloaded(
        f"The graph has taken no turn for {patience_s / 60:.0f} minutes; it says: {error.message} "
        "What has been done is kept; resume the run when there is room.",
        False,
    )
