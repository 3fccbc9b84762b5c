"""A graph that only pretends, for what runs on top of one. It keeps turns by their key, as a store does, and counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from serve_app.domain.conversation import TextPart
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.errors import Conflict
from serve_app.turns.trials import TrialEnd, TrialFailure

Answerer = Callable[[NewTurn, int], "str | TrialFailure | Exception"]
"""From a turn, and how often it has been asked for, to its answer, its failure, or what asking for it raises."""


def echo(turn: NewTurn, _asked: int) -> str:
    return f"You said: {turn.query.content}"


class FakeGraph:
    """Implements ``TrialGraph``. ``gate`` is waited for by every turn; ``most`` is how many were under way together."""

    def __init__(self, answer: Answerer = echo, *, cost_microusd: int = 0, delay_s: float = 0.0) -> None:
        self._answer = answer
        self._usage = Usage(input_tokens=10, output_tokens=5, cost_microusd=cost_microusd)
        self._delay_s = delay_s
        self.ends: dict[str, TrialEnd] = {}
        self.turns: dict[str, NewTurn] = {}
        self.asked: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most = 0
        self.versions: dict[str, tuple[str, ...]] = {"assistant": ("v1", "v2")}
        self.models = ModelCatalog(models=(), any_model=True, simulated=True)

    async def run(self, turn: NewTurn) -> TrialEnd:
        name = turn.key.turn_id
        self.asked[name] += 1
        if name in self.ends:
            if self.turns[name].query != turn.query:
                raise Conflict("another input was accepted under this name")
            return self.ends[name]
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(self._delay_s)
            said = self._answer(turn, self.asked[name])
        finally:
            self.under_way -= 1
        if isinstance(said, Exception):
            raise said
        self.turns[name] = turn
        self.ends[name] = self._end(turn, said)
        return self.ends[name]

    def _end(self, new: NewTurn, said: str | TrialFailure) -> TrialEnd:
        failed = isinstance(said, TrialFailure)
        step = StepRecord(
            step=1, attempt=1, parts=() if isinstance(said, TrialFailure) else (TextPart(text=said),), usage=self._usage,
            finish_reason="stop", model_id="fake", last_seq=3, model_ms=5, first_delta_ms=2,
        )  # fmt: skip
        turn = Turn(
            key=new.key, principal=new.principal, query=replace(new.query, trial=None), created_at=new.created_at,
            deadline=new.deadline, state="failed" if failed else "completed", steps=() if failed else (step,),
            usage=self._usage, timings_ms={"total": 9, "model": 5, "tools": 0, "queued": 1, "first_delta": 3},
        )  # fmt: skip
        return TrialEnd(turn=turn, failure=said if isinstance(said, TrialFailure) else None, prompt="assistant@v1")

    async def catalog(self) -> ModelCatalog:
        return self.models

    async def tools_for(self, principal: Principal) -> ToolSet:
        return ToolSet()

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        return self.versions

    async def aclose(self) -> None:
        pass
