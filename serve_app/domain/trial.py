"""A trial: a turn that is run to see how a configuration answers. Nobody waits for it, and nobody is shown it.

It runs through the same stages as any turn; what a conversation would bring along (history, prompt, tools) comes with it.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.conversation import Message
from serve_app.domain.generation import ModelSettings
from serve_app.domain.identity import Principal

ToolMode = Literal["live", "recorded", "simulated", "none"]
"""What becomes of a tool call: it is made; it gets the result that was recorded for it; it gets a result that was made up for it;
no tools are offered. A call for which there is no result is told so, and never made."""


class RecordedCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call as it was made once, and what came of it. ``arguments`` None stands for any."""

    name: str
    arguments: dict[str, Any] | None = None
    result: Any = None
    ok: bool = True


class TrialTools(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``calls`` are what ``recorded`` and ``simulated`` answer from. Equal calls get their results in order, the last one again.

    Recorded calls are the same where name and arguments are; simulated ones where the arguments given are among those of the
    call. ``only``: names (or their servers') of the tools that are offered of those the acting principal may use.
    """

    mode: ToolMode = "live"
    calls: tuple[RecordedCall, ...] = ()
    only: tuple[str, ...] | None = None


class Trial(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``run_id`` is the evaluation run, or the shadow, that it belongs to.

    ``acting``: as whom the prompt is built and tools are offered and called; by itself, whoever owns the turn. ``history`` is
    oldest first and ends before the query. ``prompt`` None is the default one; ``prompt_version`` None is the one in use.
    ``settings`` win over the prompt's. ``mirrors`` is the turn that a shadow follows.
    """

    run_id: str
    acting: Principal | None = None
    history: tuple[Message, ...] = ()
    prompt: str | None = None
    prompt_version: str | None = None
    settings: ModelSettings = ModelSettings()
    tools: TrialTools = TrialTools()
    mirrors: str = ""
