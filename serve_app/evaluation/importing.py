"""Cases out of transcripts: files of OpenAI's chat messages, of ShareGPT's, or pages of Parley's own messages.

A case ends with the last question and the answer that was given to it; or there is one for each question, with what came before
it. What a file does not say stays open: nothing is expected of an answer unless the given one is to be that.

Tools are called by our names: ``crm__find_account``, as providers want it, is ``crm.find_account``. A result that is JSON text is
read. ShareGPT has calls as messages (``{"name": …, "arguments": …}``), each with its result in the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.domain.trial import RecordedCall
from serve_app.evaluation.case_record import MAX_ID_CHARS, MAX_MESSAGES
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.transcripts.transcript import CalledTool, Line, Transcript

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")
_ROOM_FOR_NUMBERS = 16

_decode = msgspec.json.Decoder().decode


class Importing(Struct, frozen=True, kw_only=True):
    """How transcripts become cases. ``prefix`` begins the ids of conversations that have none. ``expect_answer`` and
    ``expect_calls``: what was answered, and called, then is what is expected now."""

    prefix: str = "case"
    each_turn: bool = False
    tags: tuple[str, ...] = ()
    tenant: str | None = None
    role: str | None = None
    expect_answer: bool = False
    expect_calls: bool = False


class Imported(Struct, kw_only=True):
    """What was read so far. ``skipped``: conversations without a question, or with too many messages."""

    cases: int = 0
    conversations: int = 0
    skipped: int = 0


def cases_of(transcripts: Sequence[Transcript], how: Importing, counted: Imported) -> Iterator[Case]:
    """The cases of these conversations, in order, with ids that no two of them have. ``counted`` is kept up to date."""
    used: set[str] = set()
    for number, transcript in enumerate(transcripts, 1):
        counted.conversations += 1
        messages = _messages(transcript.lines)
        ends = _ends(messages)
        if not ends or len(messages) > MAX_MESSAGES:
            counted.skipped += 1
            continue
        name = _name(transcript.id) or f"{how.prefix}-{number:04d}"
        for end in ends if how.each_turn else ends[-1:]:
            case_id = _unused(f"{name}-{ends.index(end) + 1}" if how.each_turn else name, used)
            counted.cases += 1
            yield Case(
                id=case_id,
                messages=tuple(messages[:end]),
                expected=_expected(messages[:end], how),
                tags=how.tags,
                tenant=how.tenant,
                role=how.role,
                metadata={"from": transcript.source},
            )


def _messages(lines: Sequence[Line]) -> list[CaseMessage]:
    """The conversation as a case has it: answers in one piece, with their calls and results; a system message at most before the
    first question."""
    messages: list[CaseMessage] = []
    asked = False
    waiting: CalledTool | None = None  # a call that was written as a message, for the result in the next one
    for line in lines:
        if line.role == "tool":
            if waiting is not None:
                _add(messages, "", (_call(CalledTool(waiting.name, waiting.arguments, line.text)),))
                waiting = None
            continue
        if waiting is not None:
            _add(messages, "", (_call(waiting),))
            waiting = None
        if line.role == "assistant":
            waiting = _written_call(line)
            if waiting is None:
                _add(messages, line.text, tuple(_call(call) for call in line.tool_calls))
        elif line.role == "user":
            asked = True
            messages.append(CaseMessage(role="user", content=line.text))
        elif not asked:
            messages.append(CaseMessage(role="system", content=line.text))
    if waiting is not None:
        _add(messages, "", (_call(waiting),))
    return messages


def _add(messages: list[CaseMessage], text: str, calls: tuple[RecordedCall, ...]) -> None:
    if messages and messages[-1].role == "assistant":
        before = messages.pop()
        text, calls = "\n\n".join(one for one in (before.content, text) if one), before.tool_calls + calls
    messages.append(CaseMessage(role="assistant", content=text, tool_calls=calls))


def _ends(messages: Sequence[CaseMessage]) -> list[int]:
    """Where the messages of each question end: after the answer to it. Questions one after the other have one answer."""
    ends = []
    for index, message in enumerate(messages):
        if message.role != "user" or not message.content.strip():
            continue
        following = messages[index + 1].role if index + 1 < len(messages) else None
        if following != "user":
            ends.append(index + 2 if following == "assistant" else index + 1)
    return ends


def _expected(messages: Sequence[CaseMessage], how: Importing) -> Expected:
    last = messages[-1]
    if last.role != "assistant":
        return Expected()
    calls = tuple(ExpectedCall(name=call.name, arguments=call.arguments) for call in last.tool_calls)
    return Expected(
        answer=last.content if how.expect_answer and last.content else None,
        tool_calls=calls if how.expect_calls else None,
    )


def _call(call: CalledTool) -> RecordedCall:
    name = call.name if "." in call.name else call.name.replace("__", ".", 1)
    arguments = call.arguments if isinstance(call.arguments, dict) else None
    return RecordedCall(name=name, arguments=arguments, result=_read(call.result), ok=call.ok)


def _read(result: Any) -> Any:
    if not isinstance(result, str) or result.lstrip()[:1] not in ("{", "["):
        return result
    try:
        return _decode(result)
    except (msgspec.DecodeError, RecursionError):
        return result


def _written_call(line: Line) -> CalledTool | None:
    if line.tool_calls or not line.text.lstrip().startswith("{"):
        return None
    value = _read(line.text)
    if isinstance(value, dict) and isinstance(value.get("name"), str) and "arguments" in value:
        arguments = value["arguments"]
        return CalledTool(value["name"], _read(arguments) if isinstance(arguments, str) else arguments)
    return None


def _name(conversation_id: str) -> str:
    return _UNPRINTABLE.sub(" ", conversation_id).strip()[: MAX_ID_CHARS - _ROOM_FOR_NUMBERS]


def _unused(wanted: str, used: set[str]) -> str:
    found, number = wanted, 1
    while found in used:
        number += 1
        found = f"{wanted}~{number}"
    used.add(found)
    return found
