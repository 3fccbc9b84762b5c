"""Scripted stand-ins for the ports beside the turn loop, for unit tests of what sits above them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct, field

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.generation import (
    FinishReason,
    Generation,
    ModelCatalog,
    ModelInfo,
    ModelMessage,
    ModelRequest,
    Thought,
)
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet, ToolSpec
from serve_app.domain.usage import Price, Usage
from serve_app.models.port import TextSink


class Reply(Struct, kw_only=True):
    """What the model does when it is called next. ``hold`` is awaited after the first half of the pieces."""

    pieces: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    error: Exception | None = None
    hold: asyncio.Event | None = None
    usage: Usage = Usage(input_tokens=10, output_tokens=5)
    model_id: str | None = None
    provider: str = ""
    warning: str = ""


class ScriptedModels:
    """Gives its replies in order, the last one for ever. ``requests`` are the chat calls it saw."""

    def __init__(
        self,
        *replies: Reply,
        title: str | None = "A title",
        title_usage: Usage = Usage(),  # noqa: B008 - frozen
        price: Price | None = None,
    ) -> None:
        self.replies = list(replies)
        self.title = title
        self.title_usage = title_usage
        self.price = price
        self.requests: list[ModelRequest] = []
        self.holding = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        if request.purpose == "utility":
            return Generation(model_id="small", finish_reason="stop", text=self.title or "", usage=self.title_usage)
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        half = (len(reply.pieces) + 1) // 2
        try:
            for piece in reply.pieces[:half]:
                on_text([piece])
                await asyncio.sleep(0)
            if reply.hold is not None:
                self.holding.set()
                await reply.hold.wait()
            for piece in reply.pieces[half:]:
                on_text([piece])
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if reply.error is not None:
            raise reply.error
        return Generation(
            model_id=reply.model_id or request.model_id or "demo",
            finish_reason="tool_calls" if reply.tool_calls else reply.finish_reason,
            text="".join(piece for piece in reply.pieces if type(piece) is not Thought),
            tool_calls=reply.tool_calls,
            usage=reply.usage,
            provider=reply.provider,
            warning=reply.warning,
        )

    async def catalog(self) -> ModelCatalog:
        model = ModelInfo(model_id="demo", provider="scripted", context_tokens=8_000, price=self.price)
        return ModelCatalog(models=(model,), default_model_id="demo", any_model=True)


class ScriptedTools(Struct, kw_only=True):
    """Tools with fixed results by name; a name without one fails."""

    specs: tuple[ToolSpec, ...] = ()
    results: dict[str, object] = field(default_factory=dict)
    calls: list[ToolCall] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    barrier: asyncio.Barrier | None = None

    async def tools_for(self, principal: Principal) -> ToolSet:
        return ToolSet(tools=self.specs, fingerprint=",".join(spec.name for spec in self.specs))

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        self.calls.append(call)
        self.keys.append(idempotency_key)
        if self.barrier is not None:
            await self.barrier.wait()
        result = self.results.get(call.name)
        if isinstance(result, Exception):
            raise result
        return ToolResult(
            tool_call_id=call.tool_call_id, name=call.name, ok=result is not None, result=result or "No such tool."
        )

    async def servers(self) -> list[ToolServerState]:
        return []


class PlainPrompts:
    """A system line, the history's text and the query."""

    async def names(self, principal: Principal) -> tuple[str, ...]:
        return ("assistant",)

    async def build(self, request: PromptRequest) -> Prompt:
        history: Sequence[ModelMessage] = [
            ModelMessage(role=message.role, content=message.text) for message in request.history
        ]
        kept = SessionPrompt(name="plain", version="v1", text="You help.", fingerprint=str(len(request.tools)))
        return Prompt(
            messages=(
                ModelMessage(role="system", content=kept.text),
                *history,
                ModelMessage(role="user", content=request.query),
            ),
            session_prompt=kept,
        )

    async def versions(self) -> dict[str, tuple[str, ...]]:
        return {"assistant": ("v1",)}

    async def title(self, content: str) -> Prompt:
        kept = SessionPrompt(name="title", version="v1", text="Title.", fingerprint="")
        return Prompt(messages=(ModelMessage(role="user", content=content),), session_prompt=kept)
