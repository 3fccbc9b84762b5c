"""From a case to the turns it is asked as, and from a turn that has ended to what is kept of it.

Whatever goes into a turn is made from the run and the case alone, never from the time or from chance: asked again, after a
crash, it is the same turn, and a store refuses one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from serve_app.domain.conversation import Message, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.identity import Principal
from serve_app.domain.trial import RecordedCall, Trial, TrialTools
from serve_app.domain.turns import NewTurn, Query, StepRecord
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.results import CellKey, StepTrace, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta, EvaluationMode
from serve_app.turns.trial_tools import NOT_RECORDED
from serve_app.turns.trials import EVALUATION_USER, TrialEnd, trial_key

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Question(Struct, frozen=True, kw_only=True):
    """One question of a case. ``before``: messages before it. ``calls``: recorded ones that its tools may be answered from, those
    made for this very question first. ``number`` counts the case's questions from 0."""

    number: int
    text: str
    before: tuple[CaseMessage, ...]
    calls: tuple[RecordedCall, ...]


class Asking(Struct, frozen=True, kw_only=True):
    """How a run asks, whatever the case: what a resumed run must not change."""

    run_id: str
    mode: EvaluationMode
    tenant: str
    role: str | None
    timeout_s: float
    replies: tuple[RecordedCall, ...] = ()


def questions(case: Case, mode: EvaluationMode) -> tuple[Question, ...]:
    """Those the case is asked: its last one, or in a replay all of them. There is at least one."""
    places = [index for index, message in enumerate(case.messages) if message.role == "user"]
    ends = [*places[1:], len(case.messages)]
    calls = [_calls(case.messages[place:end]) for place, end in zip(places, ends, strict=True)]
    every = _calls(case.messages)
    asked = [
        Question(
            number=number,
            text=case.messages[place].content,
            before=() if mode == "single-shot" else case.messages[:place],
            calls=calls[number] + tuple(call for call in every if not any(call is own for own in calls[number])),
        )
        for number, place in enumerate(places)
    ]
    return tuple(asked) if mode == "replay" else (asked[-1],)


def acting_as(asking: Asking, case: Case) -> Principal:
    """As whom the case is asked."""
    role = case.role or asking.role
    return Principal(
        tenant_id=case.tenant or asking.tenant, user_id=EVALUATION_USER, roles=tuple(role.split(",")) if role else ()
    )


def new_turn(
    asking: Asking,
    case: Case,
    cell: CellKey,
    configuration: ConfigurationMeta,
    question: Question,
    earlier: Sequence[TurnResult],
    attempt: int,
) -> NewTurn:
    """The turn that asks ``question``. ``earlier``: this replay's own turns before it, in whose place the recorded replies do not
    count; none otherwise."""
    acting = acting_as(asking, case)
    owner = Principal(tenant_id=acting.tenant_id, user_id=EVALUATION_USER)
    key = trial_key(owner, asking.run_id, cell.configuration, cell.case_id, cell.repeat, question.number, attempt)
    mode = configuration.tools
    calls = {"recorded": question.calls, "simulated": question.calls + asking.replies}.get(mode, ())
    trial = Trial(
        run_id=asking.run_id,
        acting=acting,
        history=_replayed(question, earlier) if asking.mode == "replay" else _recorded(question.before),
        prompt=configuration.prompt or None,
        prompt_version=configuration.prompt_version or None,
        settings=configuration.settings,
        tools=TrialTools(mode=mode, calls=calls, only=configuration.only_tools),
    )
    now = time.time()
    return NewTurn(
        key=key,
        principal=owner,
        query=Query(content=question.text, model_id=configuration.model or None, trial=trial),
        created_at=datetime.fromtimestamp(now, UTC),
        deadline=now + asking.timeout_s,
        client_turn_id=key.turn_id,
        priority="batch",
        opens=True,
    )


def turn_result(end: TrialEnd) -> TurnResult:
    """What is kept of a turn. Raises ValueError for one that has not ended."""
    turn = end.turn
    state = turn.state
    if state not in ("completed", "failed", "cancelled"):
        raise ValueError(f"the turn {turn.key.turn_id} has not ended")
    parts = tuple(part for step in turn.steps for part in step.parts)
    message = end.message.parts if end.message is not None else parts
    timings = turn.timings_ms
    return TurnResult(
        turn_id=turn.key.turn_id,
        question=turn.query.content,
        answer=_last_text(message),
        state=state,
        finish_reason=turn.steps[-1].finish_reason if turn.steps else "",
        steps=tuple(_trace(step) for step in turn.steps),
        usage=turn.usage,
        first_delta_ms=timings.get("first_delta"),
        total_ms=timings.get("total", 0),
        queued_ms=timings.get("queued", 0),
        prompt=end.prompt,
        error_code=end.failure.code if end.failure is not None else "",
        error_message=end.failure.message if end.failure is not None else "",
        unrecorded=tuple(
            part.name
            for part in parts
            if isinstance(part, ToolResultPart) and not part.ok and part.result == NOT_RECORDED
        ),
    )


def _trace(step: StepRecord) -> StepTrace:
    return StepTrace(
        step=step.step,
        parts=step.parts,
        model_id=step.model_id,
        provider=step.provider,
        finish_reason=step.finish_reason,
        attempt=step.attempt,
        model_ms=step.model_ms,
        first_delta_ms=step.first_delta_ms,
        tools_ms=step.tools_ms,
        usage=step.usage,
        warning=step.warning,
    )


def _last_text(parts: Sequence[Part]) -> str:
    """The text after the last call: what was said on the way to it is no answer."""
    after = max((index + 1 for index, part in enumerate(parts) if not isinstance(part, TextPart)), default=0)
    return "".join(part.text for part in parts[after:] if isinstance(part, TextPart))


def _calls(messages: Sequence[CaseMessage]) -> tuple[RecordedCall, ...]:
    return tuple(call for message in messages for call in message.tool_calls)


def _recorded(messages: Sequence[CaseMessage]) -> tuple[Message, ...]:
    """Recorded messages as a conversation has them. A system message is none: the configuration's prompt is in its place."""
    return tuple(
        _message(index, message.role, _parts(index, message))
        for index, message in enumerate(messages)
        if message.role != "system"
    )


def _replayed(question: Question, earlier: Sequence[TurnResult]) -> tuple[Message, ...]:
    """What was recorded before the first question, then every question with our own reply to it."""
    first = next((index for index, message in enumerate(question.before) if message.role == "user"), None)
    history = list(_recorded(question.before[:first]))
    for turn in earlier:
        history.append(_message(len(history), "user", (TextPart(text=turn.question),)))
        history.append(_message(len(history), "assistant", turn.parts or (TextPart(text=turn.answer),)))
    return tuple(history)


def _parts(index: int, message: CaseMessage) -> tuple[Part, ...]:
    parts: list[Part] = []
    for number, call in enumerate(message.tool_calls):
        call_id = f"call_{index}_{number}"
        parts.append(ToolCallPart(tool_call_id=call_id, name=call.name, arguments=call.arguments or {}))
        parts.append(ToolResultPart(tool_call_id=call_id, name=call.name, ok=call.ok, result=call.result))
    if message.content or not parts:
        parts.append(TextPart(text=message.content))
    return tuple(parts)


def _message(index: int, role: str, parts: tuple[Part, ...]) -> Message:
    return Message(
        message_id=f"msg_{index}",
        turn_id="",
        role="user" if role == "user" else "assistant",
        parts=parts,
        created_at=_LONG_AGO,
        position=index + 1,
    )
