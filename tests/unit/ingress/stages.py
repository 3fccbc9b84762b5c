"""Stand-ins for the stages behind ingress, whose behaviour a test writes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.domain.conversation import Message, SessionPrompt, TextPart
from serve_app.domain.events import (
    ChatResponse,
    EventRecord,
    StepReset,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnCancelled,
    TurnEvent,
    TurnFailed,
)
from serve_app.domain.generation import Generation, ModelCatalog, ModelInfo, ModelRequest
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet, ToolSpec
from serve_app.domain.turns import AppendTurn, FinishTurn, Owner, TurnState
from serve_app.domain.usage import TokenCounts, Usage
from serve_app.errors import NotFound, ParleyError, StageUnavailable
from serve_app.files.filesystem import FilesystemFiles
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.ingress.services import IngressServices
from serve_app.models.port import TextSink
from serve_app.settings import Settings, TurnSettings
from serve_app.storage.memory import MemoryStore
from serve_app.telemetry import MemoryMetrics
from serve_app.turns.port import TailEnd, TailItem, Title

OWNER = Owner(replica_id="turns-1", endpoint="here")

Event = Callable[[str, int], TurnEvent]
Beat = Event | asyncio.Event | Title
"""An event made from turn id and seq, something to wait for, or the conversation's title."""


def text(delta: str) -> Event:
    return lambda turn_id, seq: TextDelta(turn_id=turn_id, seq=seq, delta=delta)


def tool_started(call_id: str, name: str = "crm.find_account") -> Event:
    return lambda turn_id, seq: ToolStarted(
        turn_id=turn_id, seq=seq, tool_call_id=call_id, name=name, arguments={"name": "Contoso"}
    )


def tool_finished(call_id: str, ok: bool = True, result: object = "found", name: str = "crm.find_account") -> Event:
    return lambda turn_id, seq: ToolFinished(
        turn_id=turn_id, seq=seq, tool_call_id=call_id, name=name, ok=ok, result=result, duration_ms=3
    )


def reset(step: int = 0) -> Event:
    return lambda turn_id, seq: StepReset(turn_id=turn_id, seq=seq, step=step)


def answered(response: str, finish_reason: str = "stop") -> Event:
    return lambda turn_id, seq: ChatResponse(
        turn_id=turn_id,
        seq=seq,
        message_id=f"msg_{turn_id.rpartition('.')[2]}_a",
        response=response,
        usage=TokenCounts(input_tokens=5, output_tokens=2),
        finish_reason=finish_reason,
    )


def failed(message: str = "The provider failed.") -> Event:
    return lambda turn_id, seq: TurnFailed(
        turn_id=turn_id, seq=seq, code="upstream_failed", message=message, retryable=True
    )


def cancelled(response: str = "") -> Event:
    return lambda turn_id, seq: TurnCancelled(turn_id=turn_id, seq=seq, response=response)


class QueueTail:
    """A live tail that a test fills."""

    def __init__(self) -> None:
        self._batches: asyncio.Queue[Sequence[TailItem] | None] = asyncio.Queue()
        self.let_go = asyncio.Event()

    def send(self, *items: TailItem) -> None:
        self._batches.put_nowait(items)

    def end(self) -> None:
        self._batches.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Sequence[TailItem]]:
        while (batch := await self._batches.get()) is not None:
            yield batch

    @property
    def closed(self) -> bool:
        return self.let_go.is_set()

    async def aclose(self) -> None:
        self.let_go.set()


@dataclass
class ScriptedTurns:
    """Plays ``script`` for every turn it runs: each event is appended to the store, then shown live."""

    store: MemoryStore
    script: Sequence[Beat] = (text("Hello"), text(" there"), answered("Hello there"))
    live: bool = True
    """Whether followers hear anything; the log is written all the same."""
    unavailable: bool = False
    runs: list[TurnKey] = field(default_factory=list)
    follows: list[tuple[str, int]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    answer_hints: list[str] = field(default_factory=list)
    tails: dict[str, list[QueueTail]] = field(default_factory=dict)
    playing: set[asyncio.Task[None]] = field(default_factory=set)
    before_playing: Callable[[TurnKey], Awaitable[None]] | None = None
    """May set the script of the turn that comes."""

    async def run(self, key: TurnKey, *, after_seq: int = 1) -> QueueTail:
        if self.unavailable:
            raise StageUnavailable("No Turns replica can be reached.")
        tail = self._tail(key)
        self.start(key)
        return tail

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> QueueTail:
        self.follows.append((key.turn_id, after_seq))
        if not self.live:
            tail = QueueTail()
            tail.send(TailEnd(complete=False))
            tail.end()
            return tail
        return self._tail(key)

    async def hint_cancel(self, key: TurnKey, owner: Owner) -> None:
        self.hints.append(key.turn_id)

    async def hint_answer(self, key: TurnKey, owner: Owner) -> None:
        self.answer_hints.append(key.turn_id)

    def start(self, key: TurnKey) -> None:
        self.runs.append(key)
        task = asyncio.create_task(self._play(key))
        self.playing.add(task)
        task.add_done_callback(self.playing.discard)

    def _tail(self, key: TurnKey) -> QueueTail:
        tail = QueueTail()
        self.tails.setdefault(key.turn_id, []).append(tail)
        return tail

    async def _play(self, key: TurnKey) -> None:
        epoch = (await self.store.claim_turn(key, OWNER, lease_s=30, history_limit=0)).turn.epoch
        if self.before_playing is not None:
            await self.before_playing(key)
        seq = 1
        for beat in self.script:
            if isinstance(beat, asyncio.Event):
                await beat.wait()
            elif isinstance(beat, Title):
                await self.store.update_conversation(key.conversation, title=beat.title)
                self._show(key, beat)
            else:
                seq += 1
                event = beat(key.turn_id, seq)
                record = EventRecord.of(event)
                await self.store.append(
                    [AppendTurn(key=key, epoch=epoch, lease_s=30, records=(record,), finish=finish_of(key, event))]
                )
                self._show(key, record)
        self._show(key, TailEnd(complete=True))
        for tail in self.tails.get(key.turn_id, ()):
            tail.end()

    def _show(self, key: TurnKey, item: TailItem) -> None:
        if self.live:
            for tail in self.tails.get(key.turn_id, ()):
                tail.send(item)


def finish_of(key: TurnKey, event: TurnEvent) -> FinishTurn | None:
    """The finish that belongs to a terminal event."""
    states: dict[type, TurnState] = {ChatResponse: "completed", TurnFailed: "failed", TurnCancelled: "cancelled"}
    state = states.get(type(event))
    if state is None:
        return None
    response = getattr(event, "response", "")
    message = Message(
        message_id=key.assistant_message_id,
        turn_id=key.turn_id,
        role="assistant",
        parts=(TextPart(text=response),),
        created_at=datetime.now(UTC),
    )
    return FinishTurn(state=state, message=message, usage=Usage(input_tokens=5, output_tokens=2))


CATALOG = ModelCatalog(
    models=(
        ModelInfo(model_id="small", provider="test", context_tokens=8_000),
        ModelInfo(model_id="large", provider="test", context_tokens=128_000, max_output_tokens=4_000),
    ),
    default_model_id="small",
    simulated=True,
    origins={"openai": "https://api.openai.com", "other": "https://other.test"},
)


@dataclass
class StubModels:
    listing: ModelCatalog = CATALOG
    failure: ParleyError | None = None
    asked: int = 0

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        raise AssertionError("ingress never generates")

    async def catalog(self) -> ModelCatalog:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.listing


CRM = ToolSpec(name="crm.find_account", description="Finds accounts.", input_schema={"type": "object"})
HR = ToolSpec(name="hr.leave_balance", description="Days of leave left.", input_schema={"type": "object"})


@dataclass
class StubTools:
    """``crm`` for the role sales, ``hr`` for hr."""

    states: list[ToolServerState] = field(
        default_factory=lambda: [
            ToolServerState(name="crm", state="up", tools=("crm.find_account",)),
            ToolServerState(name="hr", state="up", tools=("hr.leave_balance",)),
        ]
    )
    failure: ParleyError | None = None

    async def tools_for(self, principal: Principal) -> ToolSet:
        if self.failure is not None:
            raise self.failure
        tools = tuple(tool for role, tool in (("sales", CRM), ("hr", HR)) if role in principal.roles)
        return ToolSet(tools=tools, fingerprint=",".join(tool.name for tool in tools))

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        raise AssertionError("ingress never calls tools")

    async def servers(self) -> list[ToolServerState]:
        if self.failure is not None:
            raise self.failure
        return self.states


@dataclass
class StubPrompts:
    """Renders the principal's roles, so that a change of them shows."""

    failure: ParleyError | None = None
    requests: list[PromptRequest] = field(default_factory=list)

    async def build(self, request: PromptRequest) -> Prompt:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        if "banned" in request.principal.roles:
            raise NotFound("There is no such prompt.")
        made = SessionPrompt(
            name=request.prompt_name or "assistant",
            version="1",
            text=f"You help {', '.join(request.principal.roles) or 'everybody'}.",
            fingerprint=",".join((*request.principal.roles, *(tool.name for tool in request.tools))),
        )
        return Prompt(messages=(), session_prompt=made)

    async def names(self, principal: Principal) -> tuple[str, ...]:
        return ("assistant", "sales-coach") if "sales" in principal.roles else ("assistant",)

    async def versions(self) -> dict[str, tuple[str, ...]]:
        raise AssertionError("ingress never asks for versions")

    async def title(self, content: str) -> Prompt:
        raise AssertionError("ingress never asks for titles")


@dataclass
class Stages:
    """Everything behind ingress, within a test's reach."""

    store: MemoryStore
    turns: ScriptedTurns
    models: StubModels
    tools: StubTools
    prompts: StubPrompts
    metrics: MemoryMetrics
    files_folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def services(self, settings: Settings | None = None) -> IngressServices:
        chosen = settings or Settings(store="memory", turn=TurnSettings(title_wait_s=0.05))
        return IngressServices(
            settings=chosen,
            store=self.store,
            files=FilesystemFiles(Path(self.files_folder.name), chosen.files),
            turns=self.turns,
            models=self.models,
            tools=self.tools,
            prompts=self.prompts,
            authenticator=DevelopmentAuthenticator(),
            metrics=self.metrics,
        )


def make_stages() -> Stages:
    store = MemoryStore()
    return Stages(store, ScriptedTurns(store), StubModels(), StubTools(), StubPrompts(), MemoryMetrics())
