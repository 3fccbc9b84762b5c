"""What a tenant has chosen for its turns, before what the prompt says. A query's own model comes before both."""

from __future__ import annotations

from msgspec.structs import replace

from serve_app.domain.generation import ModelSettings
from serve_app.domain.identity import TurnChoices


def chosen_settings(prompts: ModelSettings, choices: TurnChoices) -> ModelSettings:
    """Each setting as the tenant has chosen it, else as the prompt has it."""
    temperature, most = choices.temperature, choices.max_output_tokens
    return replace(
        prompts,
        temperature=prompts.temperature if temperature is None else temperature,
        max_output_tokens=prompts.max_output_tokens if most is None else most,
    )
