"""What goes into a prompt and what comes out of the builder."""

from __future__ import annotations

from msgspec import Struct

from serve_app.domain.conversation import Message, SessionPrompt
from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSpec


class PromptRequest(Struct, frozen=True, kw_only=True):
    """``history`` is oldest first and ends before the query. ``kept`` is the prompt kept with the conversation, if any.

    ``attachments`` are ids of the principal's files: their short texts are shown to the model as far as its context has room
    for all of them, else they are named. ``prompt_version`` None is the version in use; a named one may be a draft.
    """

    principal: Principal
    query: str
    history: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    prompt_name: str | None = None
    prompt_version: str | None = None
    kept: SessionPrompt | None = None
    context_tokens: int = 128_000
    attachments: tuple[str, ...] = ()


class Prompt(Struct, frozen=True, kw_only=True):
    """Messages within the window: system, history, user. ``session_prompt`` differs from what was kept if it was renewed.

    ``dropped_messages`` counts history left out to fit the model's context.
    """

    messages: tuple[ModelMessage, ...]
    session_prompt: SessionPrompt
    settings: ModelSettings = ModelSettings()
    model_id: str | None = None
    input_tokens: int = 0
    dropped_messages: int = 0
