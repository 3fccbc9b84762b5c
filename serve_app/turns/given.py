"""A turn whose caller has written the whole model request: what its model is shown and offered, and which calls are the caller's.

    bare model            the caller's messages and tools, and nothing of ours
    assistant/<prompt>    our system prompt, then the caller's messages; our tools and the caller's

Our tools run inside. A call of the caller's tools is never executed: it ends the turn, and what else the model wanted in the
same step is not done, because its result would be lost with the step.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.generation import ModelSettings
from serve_app.domain.identity import TurnChoices
from serve_app.domain.prompts import Prompt
from serve_app.domain.tools import UNREADABLE, ToolCall, ToolSpec
from serve_app.domain.turns import GivenPrompt

_NO_PROMPT = SessionPrompt(name="", version="", text="", fingerprint="")


def bare_prompt(given: GivenPrompt, choices: TurnChoices) -> Prompt:
    """The caller's messages alone. What the tenant has chosen counts where the caller says nothing."""
    chosen = ModelSettings(temperature=choices.temperature, max_output_tokens=choices.max_output_tokens)
    return Prompt(
        messages=given.messages,
        session_prompt=_NO_PROMPT,
        settings=first_settings(given.settings, chosen),
        model_id=choices.model_id,
    )


def assistant_prompt(prompt: Prompt, given: GivenPrompt) -> Prompt:
    """The instructions of a prompt that was built without a query, and the caller's messages after them."""
    system = tuple(message for message in prompt.messages if message.role == "system")
    return replace(
        prompt, messages=(*system, *given.messages), settings=first_settings(given.settings, prompt.settings)
    )


def offered(given: GivenPrompt | None, specs: Sequence[ToolSpec], *, last: bool) -> tuple[ToolSpec, ...]:
    """The tools of a step. In a turn's ``last`` there is no time for ours any more; the caller's cost none."""
    ours = () if last else tuple(specs)
    return ours if given is None else (*ours, *given.tools)


def callers_calls(given: GivenPrompt | None, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Those of the calls that the caller is to carry out. Their arguments are never None."""
    if given is None or not calls:
        return ()
    names = given.tool_names
    found = tuple(
        replace(call, arguments={UNREADABLE: call.raw}) if call.arguments is None else call
        for call in calls
        if call.name in names
    )
    return found if given.parallel_calls else found[:1]


def first_settings(first: ModelSettings, second: ModelSettings) -> ModelSettings:
    """Each setting of the first where it says something, else of the second."""
    return ModelSettings(
        temperature=second.temperature if first.temperature is None else first.temperature,
        max_output_tokens=second.max_output_tokens if first.max_output_tokens is None else first.max_output_tokens,
        top_p=second.top_p if first.top_p is None else first.top_p,
        stop=first.stop or second.stop,
        reasoning_effort=first.reasoning_effort or second.reasoning_effort,
    )
