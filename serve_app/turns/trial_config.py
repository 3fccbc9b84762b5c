"""How operators write down what a trial is asked with: a prompt, a model and its settings, under a name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from serve_app.domain.generation import ModelSettings

PromptName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class Part(BaseModel):
    """A mapping of a file: unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class SettingsConfig(Part):
    """What is said to the model; None leaves it to the prompt, and then to the provider."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_output_tokens: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    reasoning_effort: str | None = Field(default=None, min_length=1, max_length=40)

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(
            temperature=self.temperature,
            max_output_tokens=self.max_output_tokens,
            top_p=self.top_p,
            stop=self.stop,
            reasoning_effort=self.reasoning_effort,
        )


class Candidate(Part):
    """What is other than for users; what is not said is as for them."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@:/+-]{0,127}$")]
    prompt: PromptName | None = None
    """``assistant``, or one version of it: ``assistant@v2``, which may be a draft; the graph's default where nothing is said."""
    model: ModelName | None = None
    """The prompt's, or the graph's default where nothing is said."""
    settings: SettingsConfig = SettingsConfig()

    @property
    def prompt_name(self) -> str | None:
        return self.prompt.partition("@")[0] if self.prompt else None

    @property
    def prompt_version(self) -> str | None:
        return (self.prompt.partition("@")[2] or None) if self.prompt else None
