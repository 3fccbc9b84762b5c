"""The turns stage on a memory store with scripted neighbours: what the tests of the turn loop share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.turns import NewTurn, Owner, Query
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import ConversationSettings, Settings, TurnSettings
from serve_app.storage.memory import MemoryStore
from serve_app.telemetry import MemoryMetrics
from serve_app.turns.port import TailItem
from serve_app.turns.stage import TurnsStage
from serve_app.turns.tails import LocalTail
from tests.scripted import PlainPrompts, ScriptedModels, ScriptedTools

PRINCIPAL = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
FIND = ToolSpec(name="crm.find", description="Finds.", input_schema={"type": "object"})
SECONDS = 5.0
"""Bound on everything a test waits for."""


class Bench:
    """A stage on a memory store, and one conversation. Several may share a ``store``, as replicas do."""

    def __init__(
        self,
        models: ScriptedModels,
        tools: ScriptedTools | None = None,
        *,
        store: MemoryStore | None = None,
        prompts: PromptBuilder | None = None,
        replica: str = "r1",
        titles: bool = True,
        **turn: Any,
    ) -> None:
        self.store = store or MemoryStore()
        self.models = models
        self.tools = tools or ScriptedTools()
        self.prompts = prompts or PlainPrompts()
        self.metrics = MemoryMetrics()
        self.stage = TurnsStage(
            owner=Owner(replica_id=replica, endpoint=f"local://{replica}"),
            settings=Settings(
                turn=TurnSettings(**({"flush_ms": 0} | turn)), conversation=ConversationSettings(titles=titles)
            ),
            store=self.store,
            prompts=self.prompts,
            models=models,
            tools=self.tools,
            metrics=self.metrics,
        )

    async def accept(
        self,
        content: str = "Hello",
        conversation: str = "c1",
        timeout_s: float = 60,
        query: Query | None = None,
    ) -> TurnKey:
        key = ConversationKey.of(PRINCIPAL, conversation)
        await self.store.ensure_conversation(key)
        turn = NewTurn(
            key=TurnKey.new(key),
            principal=PRINCIPAL,
            query=query or Query(content=content),
            created_at=datetime.now(UTC),
            deadline=time.time() + timeout_s,
        )
        return (await self.store.accept_turn(turn)).turn.key

    async def run(self, key: TurnKey) -> list[TailItem]:
        """Runs a turn to its end here; returns what a follower was shown."""
        tail = LocalTail(10_000)
        async with asyncio.timeout(SECONDS):
            await self.stage.run_turn(key, tail)
            return [item async for batch in tail for item in batch]

    async def events(self, key: TurnKey) -> list[dict[str, Any]]:
        """The turn's log, decoded."""
        return [msgspec.json.decode(record.body) for record in (await self.store.read_events(key)).records]


@asynccontextmanager
async def bench(*args: Any, **kwargs: Any) -> AsyncIterator[Bench]:
    """A ``Bench`` that is running."""
    made = Bench(*args, **kwargs)
    made.stage.start()
    try:
        yield made
    finally:
        await made.stage.stop()


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Lets everything go on until ``reached`` says so, within the bound."""
    async with asyncio.timeout(SECONDS):
        while not await reached():  # noqa: ASYNC110 - a memory store tells nobody of its writes
            await asyncio.sleep(0)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def call(name: str = "crm.find", call_id: str = "k1", **arguments: Any) -> ToolCall:
    return ToolCall(tool_call_id=call_id, name=name, arguments=arguments)
