"""Tools as the program knows them, whoever serves them.

A tool's full name is ``<server>.<tool>``; the server's name is its namespace.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ToolSpec(Struct, frozen=True, kw_only=True):
    """What a model is told about a tool. ``input_schema`` is a JSON Schema object."""

    name: str
    description: str
    input_schema: dict[str, Any]
    idempotent: bool = False
    """Declared by the operator: running it twice with the same arguments does no harm."""
    trusted: bool = False
    """Declared by the operator: nobody else's words come back from its server."""
    side_effects: bool = False
    """Declared by the operator: it changes something, so a turn that has read others' words needs approval for it."""
    strict: bool = False
    """Asks the provider to see to it that arguments keep the schema."""

    @property
    def server(self) -> str:
        return self.name.partition(".")[0]


UNREADABLE = "unreadable_arguments"
"""The one argument of a call, where what the model wrote is no JSON object: the text of it."""


class ToolCall(Struct, frozen=True, kw_only=True):
    """A model's wish to run a tool. ``arguments`` is None where what the model wrote is no JSON object; ``raw`` has it."""

    tool_call_id: str
    name: str
    arguments: dict[str, Any] | None
    raw: str = ""


class ToolResult(Struct, frozen=True, kw_only=True):
    """What came of a call. ``result`` is JSON: structured content, or text; of a failed call a sentence that says why.

    ``untrusted``: these are words of a server that the operator does not trust.
    """

    tool_call_id: str
    name: str
    ok: bool
    result: Any
    duration_ms: int = 0
    untrusted: bool = False


class ToolServerState(Struct, frozen=True, kw_only=True):
    """A tool server as ``/ready`` and ``parley tools`` report it. ``error`` says why it is down.

    ``quarantined``: tools whose description or schema has changed since they were pinned; nobody can use them.
    """

    name: str
    state: Literal["up", "down", "connecting"]
    description: str = ""
    roles: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    error: str | None = None
    quarantined: tuple[str, ...] = ()


class ToolSet(Struct, frozen=True, kw_only=True):
    """The tools one principal may use now, in the order of configuration, and a fingerprint that changes with them."""

    tools: tuple[ToolSpec, ...] = ()
    fingerprint: str = ""
