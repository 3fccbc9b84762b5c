"""The tool calls of one step: logged before they start, run in parallel, each result logged as it comes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence

from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.events import ToolFinished, ToolStarted
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult
from serve_app.domain.turns import StepRecord, Turn
from serve_app.errors import DeadlineExceeded, Internal, ParleyError, StageUnavailable
from serve_app.settings import TurnSettings
from serve_app.telemetry import logger
from serve_app.tools.port import ToolExecutor
from serve_app.turns.log import TurnLog

MAX_TRIES = 3
"""How often a call of an idempotent tool is made where the stage that runs it dies."""
AGAIN_S = 0.2
UNKNOWN_OUTCOME = (
    "The outcome is unknown: what ran it stopped or did not answer. It may have taken effect; check first."
)

log = logger("turns.calls")


async def run_calls(
    calls: Sequence[ToolCall],
    *,
    turn: Turn,
    step: int,
    principal: Principal,
    tools: ToolExecutor,
    idempotent: frozenset[str],
    turn_log: TurnLog,
    settings: TurnSettings,
    checkpoint: Callable[[list[ToolResult]], None],
) -> None:
    """Runs the calls. ``checkpoint`` is given the results so far, in the order of the calls, with each that comes: what was
    shown of a call and what the next owner knows of it are stored together.

    ``idempotent`` names the tools that may be run again. The START of each call must be in the store before it runs, so
    that after a crash nobody can think it did not.
    """
    limit = asyncio.Semaphore(settings.max_parallel_tools)
    known: dict[int, ToolResult] = {}

    async def one(position: int, call: ToolCall) -> None:
        if position >= settings.max_tool_calls:
            result = _refusal(call, f"Not run: one step may call at most {settings.max_tool_calls} tools.")
        else:
            async with limit:
                tries = MAX_TRIES if call.name in idempotent else 1
                result = await _run(call, turn, step, principal, tools, settings, tries)
        turn_log.emit(
            ToolFinished,
            tool_call_id=call.tool_call_id,
            name=call.name,
            ok=result.ok,
            result=result.result,
            duration_ms=result.duration_ms,
        )
        known[position] = result
        checkpoint([known[position] for position in sorted(known)])

    async with asyncio.TaskGroup() as group:
        for position, call in enumerate(calls):
            group.create_task(one(position, call))


def log_starts(calls: Sequence[ToolCall], turn_log: TurnLog) -> None:
    """Adds the START of every call to the log; ``TurnLog.durable`` makes them safe."""
    for call in calls:
        turn_log.emit(ToolStarted, tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments or {})


def unfinished_calls(record: StepRecord) -> list[ToolCall]:
    """The calls of a checkpoint whose results are not known."""
    return [
        ToolCall(tool_call_id=part.tool_call_id, name=part.name, arguments=part.arguments)
        for part in record.unfinished_calls
    ]


def known_results(record: StepRecord) -> list[ToolResult]:
    """The results a checkpoint has."""
    return [
        ToolResult(tool_call_id=part.tool_call_id, name=part.name, ok=part.ok, result=part.result)
        for part in record.parts
        if isinstance(part, ToolResultPart)
    ]


def unknown_outcome(call: ToolCall, turn_log: TurnLog) -> ToolResult:
    """What model and user are told about a call that may or may not have run before a crash."""
    result = _refusal(call, UNKNOWN_OUTCOME)
    turn_log.emit(
        ToolFinished,
        tool_call_id=call.tool_call_id,
        name=call.name,
        ok=False,
        result=result.result,
        duration_ms=0,
    )
    return result


async def _run(
    call: ToolCall,
    turn: Turn,
    step: int,
    principal: Principal,
    tools: ToolExecutor,
    settings: TurnSettings,
    tries: int,
) -> ToolResult:
    """A call, again with the same key where its stage died and it may be; the model goes on without what failed."""
    key = hashlib.sha256(f"{turn.key.turn_id}\n{step}\n{call.tool_call_id}".encode()).hexdigest()[:32]
    deadline = min(turn.deadline, time.time() + settings.tool_timeout_s)
    while True:
        tries -= 1
        try:
            return await tools.call(call, principal, deadline=deadline, idempotency_key=key, request_id=turn.request_id)
        except StageUnavailable as error:
            if tries <= 0:
                log.warning("tool_outcome_unknown", turn=turn.key.turn_id, tool=call.name, error=error.message)
                return _refusal(call, UNKNOWN_OUTCOME)
            log.info("tool_run_again", turn=turn.key.turn_id, tool=call.name)
            await asyncio.sleep(AGAIN_S)
        except (DeadlineExceeded, Internal) as error:
            log.warning("tool_outcome_unknown", turn=turn.key.turn_id, tool=call.name, error=error.message)
            return _refusal(call, UNKNOWN_OUTCOME)
        except ParleyError as error:
            return _refusal(call, f"The tool could not be run: {error.message}")


def _refusal(call: ToolCall, sentence: str) -> ToolResult:
    return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=False, result=sentence)
