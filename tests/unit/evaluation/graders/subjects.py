"""Answers to grade, in few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from serve_app.domain.conversation import Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.usage import Usage
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.graders.config import GraderConfig, GraderConfigs
from serve_app.evaluation.graders.judge_port import JudgeCalls
from serve_app.evaluation.graders.make import Graders, make_graders
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import CaseResult, CellKey, Grade, StepTrace, TurnResult

Call = tuple[str, dict[str, Any]]


def configs(*values: dict[str, Any]) -> tuple[GraderConfig, ...]:
    return TypeAdapter[tuple[GraderConfig, ...]](GraderConfigs).validate_python(values)


def made(*values: dict[str, Any], judge: JudgeCalls | None = None, folder: Path = Path()) -> Graders:
    return make_graders(configs(*values), judge=judge, folder=folder)


async def graded(config: dict[str, Any], subject: Subject, judge: JudgeCalls | None = None) -> Grade | None:
    """What the one grader says."""
    (grade,) = (await made(config, judge=judge).grade(subject)).values()
    return grade


async def score(config: dict[str, Any], subject: Subject, judge: JudgeCalls | None = None) -> float | None:
    grade = await graded(config, subject, judge)
    assert grade is not None, "it had nothing to say"
    return grade.score


def expected_calls(*calls: Call | str) -> tuple[ExpectedCall, ...]:
    return tuple(
        ExpectedCall(name=call) if isinstance(call, str) else ExpectedCall(name=call[0], arguments=call[1])
        for call in calls
    )


def a_turn(
    answer: str = "", *, calls: tuple[Call, ...] = (), question: str = "What is it?", **fields: Any
) -> TurnResult:
    parts: list[Part] = []
    for number, (name, arguments) in enumerate(calls):
        parts.append(ToolCallPart(tool_call_id=f"c{number}", name=name, arguments=arguments))
        parts.append(ToolResultPart(tool_call_id=f"c{number}", name=name, ok=True, result={"number": number}))
    parts.append(TextPart(text=answer))
    steps = (StepTrace(step=1, parts=tuple(parts)),)
    return TurnResult(turn_id="t", question=question, answer=answer, steps=steps, **fields)


def failed_turn() -> TurnResult:
    return TurnResult(
        turn_id="t", question="What is it?", state="failed", error_code="upstream_failed", error_message="It broke."
    )


def a_result(
    turn: TurnResult, *, configuration: str = "v2", case_id: str = "case-1", earlier: tuple[TurnResult, ...] = ()
) -> CaseResult:
    return CaseResult(key=CellKey(configuration=configuration, case_id=case_id), turns=(*earlier, turn))


def a_subject(
    said: str = "",
    /,
    *,
    calls: tuple[Call, ...] = (),
    tags: tuple[str, ...] = (),
    configuration: str = "v2",
    case_id: str = "case-1",
    baseline: str | None = None,
    turn: TurnResult | None = None,
    messages: tuple[CaseMessage, ...] = (CaseMessage(role="user", content="What is it?"),),
    **expected: Any,
) -> Subject:
    """What was said to a case of which this is expected; ``baseline`` is the baseline's answer."""
    return Subject(
        case=Case(id=case_id, messages=messages, expected=Expected(**expected), tags=tags),
        result=a_result(turn or a_turn(said, calls=calls), configuration=configuration, case_id=case_id),
        baseline=None if baseline is None else a_result(a_turn(baseline), configuration="v1", case_id=case_id),
    )


FAILED = failed_turn()
USAGE = Usage(input_tokens=900, output_tokens=100, cost_microusd=2000)
