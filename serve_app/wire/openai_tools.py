"""What both of OpenAI's request formats say alike about tools, and how much of it there may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from serve_app.domain.generation import ToolChoice
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.wire.openai_errors import invalid

MAX_TOOLS = 128
MAX_CALL_ID = 256
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OBJECTS = msgspec.json.Decoder(dict[str, Any])


def tool_spec(
    where: str, name: object, description: object, parameters: object, strict: object, taken: set[str]
) -> ToolSpec:
    """One function the caller offers; its name is added to ``taken``. Raises InvalidInput that names ``where``."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(f"{where}.name", f"{where}.name: a name is 1 to 64 letters, digits, _ or -.")
    if name in taken:
        raise invalid(f"{where}.name", f"{where}.name: {name!r} is offered twice.")
    if parameters is not None and not isinstance(parameters, dict):
        raise invalid(f"{where}.parameters", f"{where}.parameters: must be a JSON Schema object.")
    if description is not None and not isinstance(description, str):
        raise invalid(f"{where}.description", f"{where}.description: must be a string.")
    taken.add(name)
    return ToolSpec(
        name=name,
        description=description or "",
        input_schema=NO_PARAMETERS if parameters is None else parameters,
        strict=bool(strict),
    )


def chosen_tools(
    tools: Sequence[ToolSpec], choice: object, named: str | None
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools to offer, and whether one must be called. ``named``: the one function that must be.

    Raises InvalidInput for a choice that cannot be kept.
    """
    if named is not None:
        only = tuple(tool for tool in tools if tool.name == named)
        if not only:
            raise invalid("tool_choice", f"tool_choice: there is no function {named!r} among tools.")
        return only, "required"
    if choice in (None, "auto"):
        return tuple(tools), "auto"
    if choice == "none":
        return (), "auto"
    if choice == "required":
        if not tools:
            raise invalid("tool_choice", "tool_choice: 'required' needs tools.")
        return tuple(tools), "required"
    raise invalid("tool_choice", "tool_choice: must be 'none', 'auto', 'required' or one function.")


def tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """A call that a model made earlier, as the caller repeats it."""
    try:
        read = _OBJECTS.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, UnicodeEncodeError):
        read = None
    return ToolCall(tool_call_id=call_id, name=name, arguments=read, raw=arguments)
