"""Answers that are JSON: finding it, and holding it against a schema.

References in a schema are resolved inside it only: nothing is fetched. Its patterns are matched as all patterns of others are
(``patterns``), in place of jsonschema's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.patterns import compile_pattern
from serve_app.evaluation.graders.verdict import shortened

MAX_PROBLEMS = 5
MAX_PROBLEM_CHARS = 300
MAX_SCHEMA_BYTES = 262_144
_SHOWN_CHARS = 60
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_NOT_SCHEMAS = frozenset({"const", "enum", "default", "examples"})
_UNUSABLE = (Unresolvable, RecursionError, re.error)


class NoJsonError(Exception):
    """There is no JSON in the answer. The message says why."""


def read_json(answer: str, *, fences: bool = True) -> Any:
    """The JSON that the answer is, or that stands in its only code block which is JSON. Raises NoJsonError."""
    try:
        return msgspec.json.decode(answer.strip())
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        reason = str(error)
    found = []
    for match in _FENCE.finditer(answer) if fences else ():
        try:
            found.append(msgspec.json.decode(match[2]))
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            reason = str(error)
    if len(found) == 1:
        return found[0]
    raise NoJsonError("it has several code blocks of JSON" if found else f"it is no JSON ({reason})")


class CheckedSchema:
    """A compiled JSON schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises ConfigError with what is wrong with it."""
        try:
            if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
                raise ConfigError(f"The JSON schema has more than {MAX_SCHEMA_BYTES:,} bytes.")
            kind: Any = validator_for(schema, default=Draft202012Validator)
            kind.check_schema(schema, format_checker=FormatChecker(formats=()))
            keywords = set(_checked(schema))
        except SchemaError as error:
            raise ConfigError(f"The JSON schema is invalid: {shortened(error.message, MAX_PROBLEM_CHARS)}.") from None
        except _UNUSABLE as error:
            raise ConfigError(f"The JSON schema is invalid ({type(error).__name__}).") from None
        if {"unevaluatedProperties", "patternProperties"} <= keywords:
            raise ConfigError(
                "The JSON schema has unevaluatedProperties beside patternProperties, which is not supported; "
                "use additionalProperties."
            )
        self._validator: Validator = _safe(kind)(schema, registry=Registry())

    def problems(self, value: Any) -> list[str]:
        """What is wrong with a value, a few at most; empty where it keeps the schema. Raises ConfigError where a reference leads
        nowhere, or round and round."""
        try:
            return [_words(error) for error in islice(self._validator.iter_errors(value), MAX_PROBLEMS)]
        except _UNUSABLE as error:
            raise ConfigError(f"The JSON schema cannot be followed ({type(error).__name__}).") from None


def _checked(schema: Any) -> Iterator[str]:
    """The keywords in it. Raises ConfigError for a pattern that cannot be used."""
    if isinstance(schema, list):
        for item in schema:
            yield from _checked(item)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _NOT_SCHEMAS:
            continue
        yield key
        if key == "pattern" and isinstance(value, str):
            compile_pattern(value)
        if key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                compile_pattern(pattern)
        yield from _checked(value)


@cache
def _safe(kind: Any) -> Any:
    return extend(  # type: ignore[no-untyped-call]
        kind,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    )


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compile_pattern(pattern).found_in(instance):
        yield ValidationError(f"{shortened(instance, _SHOWN_CHARS)!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, below in patterns.items():
        compiled = compile_pattern(pattern)
        for name, value in instance.items():
            if compiled.found_in(name):
                yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, below: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named = schema.get("properties", {})
    patterns = [compile_pattern(pattern) for pattern in schema.get("patternProperties", {})]
    for name, value in instance.items():
        if name in named or any(pattern.found_in(name) for pattern in patterns):
            continue
        if below is False:
            yield ValidationError(f"{shortened(name, _SHOWN_CHARS)!r} is not among the properties it may have")
        else:
            yield from validator.descend(value, below, path=name)


def _words(error: ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    message = shortened(error.message, MAX_PROBLEM_CHARS)
    return f"{shortened(path, 120)}: {message}" if path else message
