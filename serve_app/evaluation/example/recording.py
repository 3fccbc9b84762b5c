"""Conversations as they were held: the simulated assistant answers, and the example tool servers are really called."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from serve_app.companions.provider.assistant.conversation import Conversation
from serve_app.companions.provider.assistant.reply import Call, reply_to
from serve_app.companions.provider.requests import ChatRequest, FunctionCall, Message, Tool, ToolCall, ToolFunction
from serve_app.companions.server import CompanionServer, CompanionSettings
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall as CallOfTool
from serve_app.domain.tools import ToolSpec
from serve_app.domain.trial import RecordedCall
from serve_app.evaluation.cases import CaseMessage
from serve_app.models.tool_names import ToolNames
from serve_app.settings import Settings
from serve_app.telemetry import MemoryMetrics
from serve_app.tools.connect import connect
from serve_app.tools.port import ToolExecutor

_MAX_STEPS: Final = 6
_CALL_TIMEOUT_S: Final = 30.0
_encode = msgspec.json.encode


class Recorder:
    """Holds conversations and writes them down. Calls take effect, in the example data of its own."""

    def __init__(self, tools: ToolExecutor) -> None:
        self._tools = tools

    async def held(self, said: Sequence[str], role: str) -> tuple[CaseMessage, ...]:
        """The conversation in which a user with this role says these things, with every call and its result."""
        principal = Principal(tenant_id="acme", user_id="example", roles=(role,))
        specs = (await self._tools.tools_for(principal)).tools
        names = ToolNames(spec.name for spec in specs)
        offered = [_offered(spec, names) for spec in specs]
        seen: list[Message] = []
        written: list[CaseMessage] = []
        for question in said:
            seen.append(Message(role="user", content=question))
            written.append(CaseMessage(role="user", content=question))
            calls: list[RecordedCall] = []
            for _ in range(_MAX_STEPS):
                reply = reply_to(
                    ChatRequest(messages=seen, model="simulated", tools=offered or None), Conversation.read(seen)
                )
                if not reply.calls:
                    break
                seen.append(Message(role="assistant", tool_calls=[_as_asked(call) for call in reply.calls]))
                for call in reply.calls:
                    made = await self._made(call, names, principal)
                    calls.append(made)
                    text = made.result if isinstance(made.result, str) else _encode(made.result).decode()
                    seen.append(Message(role="tool", tool_call_id=call.id, content=text))
            seen.append(Message(role="assistant", content=reply.text))
            written.append(CaseMessage(role="assistant", content=reply.text, tool_calls=tuple(calls)))
        return tuple(written)

    async def _made(self, call: Call, names: ToolNames, principal: Principal) -> RecordedCall:
        arguments: dict[str, Any] = msgspec.json.decode(call.arguments)
        asked = CallOfTool(tool_call_id=call.id, name=names.full(call.name), arguments=arguments)
        deadline = time.time() + _CALL_TIMEOUT_S
        result = await self._tools.call(asked, principal, deadline=deadline, idempotency_key=call.id)
        return RecordedCall(name=asked.name, arguments=arguments, result=result.result, ok=result.ok)


@contextlib.asynccontextmanager
async def recorder(servers: Path) -> AsyncIterator[Recorder]:
    """A recorder over the example servers of the file ``servers`` (as ``configs/mcpservers.json``), with fresh data.

    Raises ConfigError, and CompanionError where they cannot be started.
    """
    async with CompanionServer(CompanionSettings(port=0, only=("crm", "hr"))) as companions:
        variables = {"PARLEY_COMPANIONS__HOST": "127.0.0.1", "PARLEY_COMPANIONS__PORT": str(companions.port)}
        tools = await connect(Settings(mcp_servers=servers), MemoryMetrics(), variables)
        try:
            yield Recorder(tools)
        finally:
            await tools.aclose()


def _offered(spec: ToolSpec, names: ToolNames) -> Tool:
    name = names.wire(spec.name)
    return Tool(function=ToolFunction(name=name, description=spec.description, parameters=spec.input_schema))


def _as_asked(call: Call) -> ToolCall:
    return ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
