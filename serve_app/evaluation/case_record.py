"""One case of a file: whether it is one, and what is wrong with it where it is none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.trial import RecordedCall
from serve_app.errors import ConfigError
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.graders.json_answers import CheckedSchema
from serve_app.evaluation.graders.patterns import compile_pattern

MAX_ID_CHARS = 200
MAX_MESSAGES = 2_000
MAX_TAGS = 50
MAX_TAG_CHARS = 100

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_encode = msgspec.json.Encoder().encode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode


class UnreadableCase(Exception):
    """What is wrong, as the rest of a sentence that has named the place."""


def read_case(record: Any, source: str) -> Case:
    """The case that ``record`` (a decoded JSON value) is. Raises UnreadableCase."""
    if not isinstance(record, Mapping):
        one_list = "; a list of cases is written as one on each line" if isinstance(record, list) else ""
        raise UnreadableCase(f"a case must be an object{one_list}")
    if "id" not in record and ("conversations" in record or "items" in record or "messages" in record):
        raise UnreadableCase(
            "it has no id; a transcript (OpenAI's, ShareGPT's, Parley's) becomes a data set with `parley eval import`"
        )
    _refuse_unknown(record)
    try:
        case = msgspec.convert({**record, "source": source}, Case)
    except msgspec.ValidationError as error:
        raise UnreadableCase(_words(error)) from None
    _check(case)
    return case


def encode_case(case: Case) -> bytes:
    """The case as a line of a file, without the line's end and without where it was read."""
    return _encode(replace(case, source=""))


def case_content(case: Case) -> bytes:
    """What the case says: the same bytes for the same case, however its keys were ordered and wherever it was read."""
    return _encode_in_order(replace(case, source=""))


# -- what types do not say ---------------------------------------------------------------------------------------------------


def _check(case: Case) -> None:
    if not case.id or len(case.id) > MAX_ID_CHARS or _UNPRINTABLE.search(case.id):
        raise UnreadableCase(f"id must have 1 to {MAX_ID_CHARS} characters, and no line ends or control characters")
    _check_messages(case.messages)
    if len(case.tags) > MAX_TAGS or any(not tag.strip() or len(tag) > MAX_TAG_CHARS for tag in case.tags):
        raise UnreadableCase(f"tags may be {MAX_TAGS} at most, of 1 to {MAX_TAG_CHARS} characters each")
    _check_expected(case.expected)


def _check_messages(messages: tuple[CaseMessage, ...]) -> None:
    if len(messages) > MAX_MESSAGES:
        raise UnreadableCase(f"there are more than {MAX_MESSAGES:,} messages")
    questions = [index for index, message in enumerate(messages) if message.role == "user"]
    if not questions:
        raise UnreadableCase("there is no question: one of the messages must be a user's")
    if not messages[questions[-1]].content.strip():
        raise UnreadableCase(f"messages[{questions[-1]}]: the last question is empty")
    for index, message in enumerate(messages):
        if message.tool_calls and message.role != "assistant":
            raise UnreadableCase(f"messages[{index}]: only an assistant's message can have tool_calls")
        if message.role == "system" and index > questions[0]:
            raise UnreadableCase(f"messages[{index}]: a system message must stand before the first question")


def _check_expected(expected: Expected) -> None:
    if expected.number is not None and not math.isfinite(expected.number):
        raise UnreadableCase("expected.number must be a finite number")
    if any(not fact.strip() for fact in expected.facts):
        raise UnreadableCase("expected.facts: a fact is empty, and would be found in every answer")
    if expected.pattern is not None:
        try:
            compile_pattern(expected.pattern)
        except ConfigError as error:
            raise UnreadableCase(f"expected.pattern: {error.message.rstrip('.')}") from None
    if expected.schema is not None and (problem := _schema_problem(_encode(expected.schema))):
        raise UnreadableCase(f"expected.schema: {problem}")


@lru_cache(maxsize=256)
def _schema_problem(encoded: bytes) -> str:
    try:
        CheckedSchema(msgspec.json.decode(encoded))
    except ConfigError as error:
        return error.message.rstrip(".")
    return ""


# -- fields that do not exist, and values of a wrong kind ------------------------------------------------------------------------


def _refuse_unknown(record: Mapping[str, Any]) -> None:
    """A misspelt field would silently expect nothing."""
    _known(record, Case, "", without=("source",))
    _known(record.get("expected"), Expected, "expected.")
    for index, message in enumerate(_items(record.get("messages"))):
        _known(message, CaseMessage, f"messages[{index}].")
        for number, call in enumerate(_items(_get(message, "tool_calls"))):
            _known(call, RecordedCall, f"messages[{index}].tool_calls[{number}].")
    for number, call in enumerate(_items(_get(record.get("expected"), "tool_calls"))):
        _known(call, ExpectedCall, f"expected.tool_calls[{number}].")


def _known(value: Any, kind: type[Struct], where: str, without: tuple[str, ...] = ()) -> None:
    if not isinstance(value, Mapping):
        return
    for name in value:
        if name not in kind.__struct_fields__ or name in without:
            there = ", ".join(field for field in kind.__struct_fields__ if field not in without)
            raise UnreadableCase(f"there is no field {where}{str(name)[:40]}; there are {there}")


def _words(error: msgspec.ValidationError) -> str:
    """``Expected `str`, got `int` - at `$.id` ``, said as `id: expected str, got int`."""
    message, _, place = str(error).partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    said = (message[:1].lower() + message[1:]).replace("`", "")
    return f"{path}: {said}" if path else said


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
