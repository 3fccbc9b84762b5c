"""The model gateway and the tool executor of the simulation: scripted, slow in virtual time, and mortal.

Every piece of text names the generation it belongs to, and every generation is worth a power of two in tokens, so that an
answer tells which generations it is made of, and a sum of tokens which were counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from serve_app.domain.generation import Generation, ModelCatalog, ModelInfo, ModelRequest
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet, ToolSpec
from serve_app.domain.usage import Usage
from serve_app.errors import DeadlineExceeded, StageUnavailable, UpstreamFailed
from serve_app.models.port import TextSink
from tests.simulation.clock import VirtualTime
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Process
from tests.simulation.schedule import READ_TOOL, WRITE_TOOL, Fault, Step

SPECS = (
    ToolSpec(name=READ_TOOL, description="Reads.", input_schema={"type": "object"}, idempotent=True),
    ToolSpec(name=WRITE_TOOL, description="Writes.", input_schema={"type": "object"}),
)
MAX_COUNTED = 60
"""Generations of a turn that can be told apart by their tokens."""


@dataclass
class Outside:
    """What models and tools have done, all replicas together."""

    ledger: Ledger
    faults: Faults
    piece_s: float
    scripts: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    """By the text of the question."""
    generations: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    """Turn → step and whole text of each generation that was begun, in their order."""
    effects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Idempotency key → the tool, each time that it took effect."""
    effects_by_call: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Request and call → how often it took effect."""

    def check_started(self, request_id: str, call_id: str) -> None:
        """The start of a call is in the log before it runs."""
        sign = f'"tool_call_id":"{call_id}"'.encode()
        for account in self.ledger.turns.values():
            if account.accepted.request_id == request_id:
                started = any(sign in record.body for record in self.ledger.records(account.key))
                self.ledger.verdict.expect(started, "a call is in the log before it runs", f"{request_id}: {call_id}")


class SimModels:
    def __init__(self, process: Process, outside: Outside) -> None:
        self._process = process
        self._outside = outside

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        left_s = request.deadline - VirtualTime.time()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await self._generate(request, on_text)
        except TimeoutError as error:
            raise DeadlineExceeded("The model took too long.") from error

    async def _generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        outside = self._outside
        if request.purpose == "utility":
            await asyncio.sleep(outside.faults.latency_s(0.3))
            return Generation(model_id="small", finish_reason="stop", text="A title")
        question = max(index for index, message in enumerate(request.messages) if message.role == "user")
        step = sum(message.role == "assistant" for message in request.messages[question:])
        script = outside.scripts[request.messages[question].content]
        plan = script[step] if step < len(script) else Step(pieces=1)
        begun = outside.generations[request.turn_id]
        number = len(begun)
        pieces = [f"<{number}.{piece}>" for piece in range(plan.pieces)]
        begun.append((step, "".join(pieces)))
        calls = outside.ledger.turns[request.turn_id].model_calls
        calls[step] = calls.get(step, 0) + 1
        fault = outside.faults.at("generate")
        for index, piece in enumerate(pieces):
            if fault is not None and index == fault.piece:
                await self._strike(fault)
            await asyncio.sleep(outside.faults.latency_s(outside.piece_s))
            on_text([piece])
        if fault is not None and fault.piece >= len(pieces):
            await self._strike(fault)
        await asyncio.sleep(outside.faults.latency_s(outside.piece_s))
        return Generation(
            model_id="demo",
            finish_reason="tool_calls" if plan.tools else "stop",
            text="".join(pieces),
            tool_calls=tuple(
                ToolCall(tool_call_id=f"call_{number}_{index}", name=name, arguments={"n": index})
                for index, name in enumerate(plan.tools)
            ),
            usage=Usage(input_tokens=1 << number if number < MAX_COUNTED else 0, output_tokens=1),
        )

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "break":
                raise UpstreamFailed("The stream broke off.")
            case "die_with_stage":
                raise StageUnavailable("The model gateway died.")
            case "refuse":
                raise UpstreamFailed("The provider gave up.", False)
            case "hang":
                await asyncio.sleep(3_600)
            case _:
                await strike(fault, self._process, self._outside.faults)

    async def catalog(self) -> ModelCatalog:
        model = ModelInfo(model_id="demo", provider="simulated", context_tokens=8_000)
        return ModelCatalog(models=(model,), default_model_id="demo", any_model=True)


class SimTools:
    def __init__(self, process: Process, outside: Outside) -> None:
        self._process = process
        self._outside = outside

    async def tools_for(self, principal: Principal) -> ToolSet:
        return ToolSet(tools=SPECS, fingerprint="two")

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        left_s = max(0.0, deadline - VirtualTime.time())
        try:
            async with asyncio.timeout(left_s):
                return await self._call(call, idempotency_key, request_id)
        except TimeoutError:
            return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=False, result="It took too long.")

    async def _call(self, call: ToolCall, key: str, request_id: str) -> ToolResult:
        outside = self._outside
        fault = outside.faults.at("tool")
        before = fault is not None and not fault.kind.endswith("_after")
        if fault is not None and before:
            if fault.kind == "error":
                return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=False, result="It failed.")
            await self._strike(fault)
        await asyncio.sleep(outside.faults.latency_s(0.01))
        outside.check_started(request_id, call.tool_call_id)
        outside.effects[key].append(call.name)
        outside.effects_by_call[request_id, call.tool_call_id] += 1
        if fault is not None and not before:
            await self._strike(fault)
        await asyncio.sleep(outside.faults.latency_s(0.01))
        return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=True, result=f"done {call.tool_call_id}")

    async def _strike(self, fault: Fault) -> None:
        if fault.kind.startswith("stage_dies"):
            raise StageUnavailable("The tool executor died.")
        if fault.kind == "hang":
            await asyncio.sleep(3_600)
        await strike(fault, self._process, self._outside.faults)

    async def servers(self) -> list[ToolServerState]:
        return []


async def strike(fault: Fault, process: Process, faults: Faults) -> None:
    """What befalls whoever is at work: it dies, stops, or is slow."""
    if fault.kind.startswith("die"):
        process.kill()
        await asyncio.sleep(0)
    elif fault.kind.startswith("stop"):
        faults.stop(process, fault.duration_s)
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(fault.duration_s)
