"""Scripts: a YAML or JSON file that says what the provider answers to which prompt, for tests and load.

The first rule that matches a request answers it with the next of its responses. A rule counts either the requests it
has answered (`order: calls`, for "fail once, then work") or the tool rounds of the turn (`order: rounds`, which many
conversations at once can share). A mistake in the file is told with its line and field.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serve_app.companions.errors import CompanionError
from serve_app.companions.provider.failures import Failure
from serve_app.companions.provider.profile import LoadProfile

MAX_SCRIPT_BYTES: Final = 1024 * 1024
MAX_SEARCHED_CHARS: Final = 4096


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedCall(_Strict):
    """A tool call the model makes."""

    name: str = Field(min_length=1, max_length=64)
    arguments: dict[str, Any] = Field(default_factory=dict)


class Response(_Strict):
    """One scripted answer: text, tool calls, or both; its pace; and how it fails."""

    text: str = Field(default="", max_length=1_000_000)
    tool_calls: tuple[ScriptedCall, ...] = Field(default=(), max_length=32)
    ttft_ms: float | None = Field(default=None, ge=0, le=600_000)
    token_ms: float | None = Field(default=None, ge=0, le=60_000)
    failure: Failure | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Response:
        if not self.text and not self.tool_calls and self.failure is None:
            raise ValueError("give a text, tool_calls or a failure")
        return self


class Match(_Strict):
    """What a request must be like; every condition given must hold. Text conditions look at the last user message."""

    contains: str | None = Field(default=None, min_length=1, max_length=500, description="ignoring case")
    regex: str | None = Field(
        default=None, min_length=1, max_length=500, description="searched in the first 4096 characters"
    )
    model: str | None = Field(default=None, min_length=1, max_length=200, description="name or pattern such as gpt-*")
    round: int | None = Field(default=None, ge=0, le=100, description="tool rounds already done in this turn")

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    def fits(self, text: str, model: str, tool_round: int) -> bool:
        """Whether a request with this user text, model and tool round is meant."""
        text = text[:MAX_SEARCHED_CHARS]
        if self.contains is not None and self.contains.lower() not in text.lower():
            return False
        if self.regex is not None and re.search(self.regex, text) is None:
            return False
        if self.model is not None and not fnmatchcase(model, self.model):
            return False
        return self.round is None or self.round == tool_round


class Rule(_Strict):
    """A condition and the answers given under it."""

    name: str | None = Field(default=None, max_length=100, description="shown by GET /_sim/requests")
    match: Match = Match()
    order: Literal["calls", "rounds"] = "calls"
    then: Literal["last", "repeat", "pass"] = Field(
        default="last", description="after the last response: give it again, start over, or let later rules answer"
    )
    responses: tuple[Response, ...] = Field(min_length=1, max_length=1000)


class Script(_Strict):
    """A whole script file."""

    profile: LoadProfile = LoadProfile()
    rules: tuple[Rule, ...] = Field(default=(), max_length=1000)


class ScriptPlayer:
    """A script being played: it remembers how often each rule has answered. One per provider, one event loop."""

    def __init__(self, script: Script) -> None:
        self._rules = script.rules
        self._answered = [0] * len(script.rules)

    def answer(self, text: str, model: str, tool_round: int) -> tuple[str, Response] | None:
        """The next response of the first rule that fits, with the rule's name; None when no rule answers."""
        for index, rule in enumerate(self._rules):
            if not rule.match.fits(text, model, tool_round):
                continue
            position = self._answered[index] if rule.order == "calls" else tool_round
            if position >= len(rule.responses):
                if rule.then == "pass":
                    continue
                position = len(rule.responses) - 1 if rule.then == "last" else position % len(rule.responses)
            self._answered[index] += 1
            return rule.name or f"rules[{index}]", rule.responses[position]
        return None

    def rewind(self) -> None:
        """Forget what has been answered."""
        self._answered = [0] * len(self._rules)


def load_script(path: Path) -> Script:
    """Read a script file.

    Raises:
        CompanionError: It cannot be read or is not valid; the sentence names file, line and field.
    """
    try:
        if path.stat().st_size > MAX_SCRIPT_BYTES:
            raise CompanionError(f"The provider script {path} is larger than {MAX_SCRIPT_BYTES} bytes.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompanionError(f"The provider script {path} cannot be read: {error}") from error
    try:
        return Script.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not valid YAML or JSON"
        raise CompanionError(f"{path}{line}: {problem}") from None
    except ValidationError as error:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        problems = [_located(tree, one["loc"], one["msg"]) for one in error.errors()[:5]]
        raise CompanionError(f"The provider script {path} is not valid: {'; '.join(problems)}") from None


def _located(tree: yaml.Node | None, loc: tuple[int | str, ...], message: str) -> str:
    """Say where in the file a validation error is: pydantic knows the path, the YAML tree knows the lines."""
    node, line, path = tree, 1, ""
    for key in loc:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == key:
                    found, line = value, name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = node.value[key]
            line = found.start_mark.line + 1
        if found is None and isinstance(node, yaml.MappingNode) and key in {"http", "disconnect", "truncate", "stall",
                                                                            "malformed", "stream_error"}:  # fmt: skip
            continue  # the tag of a union is part of pydantic's path and not of the file's
        path += f"[{key}]" if isinstance(key, int) else f"{'.' if path else ''}{key}"
        node = found
    return f"line {line}, {path or 'the file'}: {message}"
