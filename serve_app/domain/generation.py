"""The vocabulary between turns and models: messages in, pieces of text and a result out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.priority import Priority
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.usage import Price, Usage

FROM_CACHE = "cache"
"""The provider of an answer that was given before, and for which nobody was asked again."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

ToolChoice = Literal["auto", "required"]
"""``required``: the model must call a tool."""


class Thought(str):
    """A piece of what a model thought aloud before its answer. Among the pieces at a sink it stands in order; it is no text of
    the answer."""

    __slots__ = ()


class ModelMessage(Struct, frozen=True, kw_only=True):
    """One message of a prompt. ``tool_calls`` belong to the assistant, ``tool_call_id`` to a tool's result."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ModelSettings(Struct, frozen=True, kw_only=True):
    """What a prompt may say about the call; None leaves it to the provider."""

    temperature: float | None = None
    max_output_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str | None = None


class ModelRequest(Struct, frozen=True, kw_only=True):
    """A call of a model. ``model_id`` None lets the gateway choose by ``purpose``. ``deadline`` is in Unix seconds."""

    messages: tuple[ModelMessage, ...]
    deadline: float
    model_id: str | None = None
    purpose: Literal["chat", "utility"] = "chat"
    tools: tuple[ToolSpec, ...] = ()
    settings: ModelSettings = ModelSettings()
    turn_id: str = ""
    request_id: str = ""
    tenant_id: str = ""
    priority: Priority = "live"
    response_format: Mapping[str, Any] | None = None
    """A JSON schema or ``json_object`` the answer is to keep, in the words of OpenAI's ``response_format``."""
    tool_choice: ToolChoice = "auto"
    fresh: bool = False
    """Whether the answer must be the model's own, now: none that was kept, and none to keep."""


class Generation(Struct, frozen=True, kw_only=True):
    """The end of a generation. ``text`` is all of it, so that a reader of the pieces can tell whether one was lost."""

    model_id: str
    finish_reason: FinishReason
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    first_delta_ms: int | None = None
    duration_ms: int = 0
    provider: str = ""
    warning: str = ""
    """What the client should know of how it came about: that another model answered than was asked for."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model clients may ask for. ``context_tokens`` bounds prompt and answer together."""

    model_id: str
    provider: str
    context_tokens: int
    max_output_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ("tools",)
    price: Price | None = None


class ModelCatalog(Struct, frozen=True, kw_only=True):
    """``any_model``: a name that is not listed is passed on to the provider untouched. ``simulated``: no real provider.

    ``origins``: providers by name, and where each is (``https://api.example.com``); none where they are simulated.
    """

    models: tuple[ModelInfo, ...]
    default_model_id: str | None = None
    utility_model_id: str | None = None
    any_model: bool = False
    simulated: bool = False
    default_context_tokens: int = 128_000
    origins: Mapping[str, str] = {}
