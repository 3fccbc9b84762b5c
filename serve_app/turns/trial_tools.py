"""A trial's tools: the real ones, or results that came with the trial, whose calls are never made.

    live        as in any turn
    recorded    the result that the very call had when it was made        offered and checked as live;
    simulated   the result made up for calls with such arguments          nothing takes effect
    none        no tools

A call's result depends on the calls before it alone, not on the moment it is asked for: whoever takes the turn over gives it the
same one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from serve_app.domain.conversation import ToolCallPart
from serve_app.domain.identity import Principal, stands_for
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet, ToolSpec
from serve_app.domain.trial import RecordedCall, Trial, TrialTools
from serve_app.domain.turns import StepRecord
from serve_app.tools.arguments import ArgumentCheck, UnusableSchema, no_such_tool, refused_arguments
from serve_app.tools.port import ToolExecutor

NOT_RECORDED = "Not run: no result is recorded for this call, and here calls are answered from records only."
"""The result of a call that the trial's records do not have."""

MAX_CHECKS = 512


class TrialToolExecutor:
    """Implements ``ToolExecutor`` for one trial, around the real one. ``made`` gives the turn's steps as they are now."""

    def __init__(self, tools: ToolExecutor, trial: TrialTools, made: Callable[[], Sequence[StepRecord]]) -> None:
        self._tools = tools
        self._trial = trial
        self._made = made
        self._offered: dict[str, ToolSpec] = {}

    def offered(self, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Those of the principal's tools that the trial offers. Where no call takes effect, none can do harm twice or at all."""
        mode, only = self._trial.mode, self._trial.only
        if mode == "none":
            specs = ()
        if only is not None:
            specs = [spec for spec in specs if any(stands_for(one, spec.name) for one in only)]
        if mode != "live":
            specs = [replace(spec, idempotent=True, side_effects=False) for spec in specs]
        self._offered = {spec.name: spec for spec in specs}
        return tuple(specs)

    async def tools_for(self, principal: Principal) -> ToolSet:
        found = await self._tools.tools_for(principal)
        return ToolSet(tools=self.offered(found.tools), fingerprint=found.fingerprint)

    async def servers(self) -> list[ToolServerState]:
        return await self._tools.servers()

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        spec = self._offered.get(call.name)
        if spec is None:
            return _result(call, False, no_such_tool(call.name))
        if self._trial.mode == "live":
            return await self._tools.call(
                call, principal, deadline=deadline, idempotency_key=idempotency_key, request_id=request_id
            )
        refused = _refused(spec, call)
        if refused is not None:
            return _result(call, False, refused)
        record = self._record(call)
        if record is None:
            return _result(call, False, NOT_RECORDED)
        return replace(_result(call, record.ok, record.result), untrusted=not spec.trusted)

    def _record(self, call: ToolCall) -> RecordedCall | None:
        """The first such call gets the first of the records that answer it, the second the second, and so on."""
        answers = self._answers(call.name, call.arguments or {})
        if not answers:
            return None
        before = sum(self._answers(part.name, part.arguments) == answers for part in self._calls_before(call))
        return self._trial.calls[answers[min(before, len(answers) - 1)]]

    def _answers(self, name: str, arguments: dict[str, Any]) -> list[int]:
        """The records that answer such a call: those that say most of its arguments."""
        found: dict[int, list[int]] = {}
        for position, record in enumerate(self._trial.calls):
            if record.name == name and self._fits(record.arguments, arguments):
                said = -1 if record.arguments is None else len(record.arguments)
                found.setdefault(said, []).append(position)
        return found[max(found)] if found else []

    def _fits(self, recorded: dict[str, Any] | None, arguments: dict[str, Any]) -> bool:
        if recorded is None:
            return True
        if self._trial.mode == "recorded":
            return _same(recorded, arguments)
        return all(name in arguments and _same(value, arguments[name]) for name, value in recorded.items())

    def _calls_before(self, call: ToolCall) -> list[ToolCallPart]:
        """The turn's calls before this one, which is among those of its last step."""
        steps = self._made()
        calls = [part for step in steps[:-1] for part in step.parts if isinstance(part, ToolCallPart)]
        for part in steps[-1].parts if steps else ():
            if isinstance(part, ToolCallPart):
                if part.tool_call_id == call.tool_call_id:
                    break
                calls.append(part)
        return calls


def trial_tools(
    tools: ToolExecutor, trial: Trial | None, made: Callable[[], Sequence[StepRecord]]
) -> TrialToolExecutor | None:
    """The trial's tools; None for a turn that is no trial."""
    return None if trial is None else TrialToolExecutor(tools, trial.tools, made)


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1, and 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_checks: OrderedDict[bytes, ArgumentCheck | UnusableSchema] = OrderedDict()
"""Compiled schemas by their JSON; bounded."""


def _refused(spec: ToolSpec, call: ToolCall) -> str | None:
    """What a model is told of arguments that do not fit, in the words it would be told in a live call."""
    check = _check(spec)
    if isinstance(check, UnusableSchema):
        return f"The tool cannot be called: {check}."
    refused = refused_arguments(check, call.arguments)
    return None if refused is None else refused.sentence


def _check(spec: ToolSpec) -> ArgumentCheck | UnusableSchema:
    schema = msgspec.json.encode(spec.input_schema)
    found = _checks.get(schema)
    if found is None:
        try:
            found = ArgumentCheck(spec.input_schema)
        except UnusableSchema as error:
            found = error
        _checks[schema] = found
        if len(_checks) > MAX_CHECKS:
            _checks.popitem(last=False)
    return found


def _result(call: ToolCall, ok: bool, result: Any) -> ToolResult:
    return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=ok, result=result)
