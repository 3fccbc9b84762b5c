"""Arguments against a tool's schema: compiled once per tool, and told in words that a model can act on."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

MAX_PROBLEMS = 3
MAX_PROBLEM_CHARS = 240

_UNUSABLE = (Unresolvable, RecursionError, re.error)


class UnusableSchema(Exception):
    """A tool's schema that no arguments can be checked against. The message says why."""


class ArgumentCheck:
    """A compiled input schema. References are resolved inside the schema only: nothing is fetched."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises UnusableSchema."""
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise UnusableSchema(f"its input schema is invalid: {_cut(error.message)}") from None
        except _UNUSABLE as error:
            raise UnusableSchema(f"its input schema is invalid: {type(error).__name__}") from None
        self._validator = kind(schema, registry=Registry())

    def problem(self, arguments: dict[str, Any]) -> str | None:
        """What is wrong with the arguments, or None. Raises UnusableSchema where a reference leads nowhere."""
        try:
            found = list(islice(self._validator.iter_errors(arguments), MAX_PROBLEMS))
        except _UNUSABLE as error:
            raise UnusableSchema(f"its input schema cannot be followed: {type(error).__name__}") from None
        return "; ".join(_words(error) for error in found) or None


class Refused(NamedTuple):
    """Why a call is not made: ``outcome`` for the metrics, a sentence for the model."""

    outcome: str
    sentence: str


def refused_arguments(check: ArgumentCheck, arguments: dict[str, Any] | None) -> Refused | None:
    """Why a tool may not be called with these arguments; None where it may. None for arguments: what was no JSON object."""
    if arguments is None:
        sentence = "The arguments are not a JSON object. Call the tool again with arguments that fit its schema."
        return Refused("invalid_arguments", sentence)
    try:
        problem = check.problem(arguments)
    except UnusableSchema as error:
        return Refused("failed", f"The tool cannot be called: {error}.")
    if problem is None:
        return None
    return Refused(
        "invalid_arguments",
        f"The arguments do not fit the tool's schema: {problem}. Correct them and call the tool again.",
    )


def no_such_tool(name: str) -> str:
    """What a model is told that calls a tool there is not, or not for whom it serves."""
    return f"There is no tool {name[:128]!r} that may be used here. Use only the tools that were offered."


def _words(error: ValidationError) -> str:
    path = "arguments" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"{_cut(path, 120)}: {_cut(error.message)}"


def _cut(text: str, limit: int = MAX_PROBLEM_CHARS) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
