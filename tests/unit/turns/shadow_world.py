"""A replica that mirrors its live turns, with scripted models and tools: what the tests of shadow runs share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from ulid import ULID

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolSpec
from serve_app.domain.turns import NewTurn, Query
from serve_app.domain.usage import Usage
from serve_app.models.port import TextSink
from serve_app.storage.memory.transfer import MemoryTransfer
from serve_app.turns.shadow import Shadow
from serve_app.turns.shadow_config import ShadowConfig
from serve_app.turns.shadow_records import KIND, SHADOW_USER, MirroredTurn, read_record
from serve_app.turns.trial_config import Candidate
from serve_app.turns.trials import TrialGraph, Trials
from tests.scripted import PlainPrompts, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import PRINCIPAL, SECONDS, Bench, call

CHANGE = ToolSpec(
    name="crm.update", description="Changes.", input_schema={"type": "object"}, side_effects=True, trusted=True
)
LIST = ToolSpec(name="crm.list", description="Lists.", input_schema={"type": "object"}, trusted=True)
EVERY = ShadowConfig(share=1, candidates=(Candidate(name="v2", model="candidate"),))


class TwoMinds(ScriptedModels):
    """Changes what the question names, and says what came of it. The candidate wants to list something first."""

    def __init__(self) -> None:
        super().__init__()

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        if request.purpose == "utility":
            return await super().generate(request, on_text)
        self.requests.append(request)
        asked = max(index for index, message in enumerate(request.messages) if message.role == "user")
        results = [message.content for message in request.messages[asked:] if message.role == "tool"]
        usage = Usage(input_tokens=10, output_tokens=5, cost_microusd=7)
        wanted = ["crm.update"] if request.model_id != "candidate" else ["crm.list", "crm.update"]
        if len(results) < len(wanted):
            made = call(wanted[len(results)], f"k{len(results)}", id=request.messages[asked].content)
            return Generation(model_id="demo", finish_reason="tool_calls", tool_calls=(made,), usage=usage)
        text = f"{request.model_id}: {results[-1]}"
        on_text([text])
        return Generation(model_id="demo", finish_reason="stop", text=text, usage=usage)


class World:
    """A replica with its store and tools, mirroring or not."""

    def __init__(self, config: ShadowConfig | None = EVERY, *, store: MemoryTransfer | None = None) -> None:
        self.store = store or MemoryTransfer()
        self.tools = ScriptedTools(specs=(CHANGE, LIST), results={"crm.update": {"done": True}, "crm.list": [1, 2]})
        self.models = TwoMinds()
        self.bench = Bench(self.models, self.tools, store=self.store, titles=False)
        self.graph: TrialGraph = Trials(
            store=self.store,
            stage=self.bench.stage,
            prompts=PlainPrompts(),
            models=self.models,
            tools=self.tools,
            lease_s=5,
        )
        self.shadow = None if config is None else self.shadowing(config)

    def shadowing(self, config: ShadowConfig, graph: TrialGraph | None = None) -> Shadow:
        made = Shadow(config, store=self.store, graph=graph or self.graph, metrics=self.bench.metrics, timeout_s=60)
        self.bench.stage.on_completed = made.offer
        return made

    async def settle(self) -> None:
        if self.shadow is not None:
            async with asyncio.timeout(SECONDS):
                await self.shadow.settle()

    async def records(self) -> list[MirroredTurn]:
        page = await self.store.list_records(PRINCIPAL.tenant_id, KIND, limit=200)
        return [read_record(record) for record in page.items]

    async def trials(self) -> list[ConversationKey]:
        page = await self.store.scan_conversations(limit=1_000)
        return [key for key in page.items if key.user_id == SHADOW_USER]

    def counts(self) -> dict[str, float]:
        return {
            labels[1]: value
            for labels, value in self.bench.metrics.counts.items()
            if labels[0] == "parley_shadow_total"
        }


@asynccontextmanager
async def world(config: ShadowConfig | None = EVERY) -> AsyncIterator[World]:
    made = World(config)
    made.bench.stage.start()
    if made.shadow is not None:
        made.shadow.start()
    try:
        yield made
    finally:
        if made.shadow is not None:
            await made.shadow.stop()
        await made.bench.stage.stop()


async def asked(here: World, content: str, *, number: int = 1, **fields: Any) -> tuple[TurnKey, list[dict[str, Any]]]:
    """A turn under an id of its own that is the same in every world; what its follower was shown."""
    owner = ConversationKey.of(PRINCIPAL, "c1")
    key = TurnKey(conversation=owner, turn_id=f"c1.{ULID.from_timestamp(1_700_000_000 + number)!s:.10}{number:016d}")
    turn = NewTurn(
        key=key,
        principal=PRINCIPAL,
        query=fields.pop("query", Query(content=content)),
        created_at=datetime.now(UTC),
        deadline=time.time() + 60,
        opens=True,
        **fields,
    )
    await here.store.accept_turn(turn)
    shown = await here.bench.run(key)
    return key, [msgspec.json.decode(item.body) for item in shown if hasattr(item, "body")]
