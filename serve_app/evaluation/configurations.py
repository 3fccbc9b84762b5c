"""What is compared: a prompt, a model, its settings and its tools, under one name; and every combination of several of them."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from serve_app.domain.generation import ModelSettings
from serve_app.domain.trial import ToolMode

ConfigurationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@:/+-]{0,127}$")]
PromptName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class Part(BaseModel):
    """A mapping of the file: unknown keys are mistakes."""

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


class NamedSettings(SettingsConfig):
    name: ConfigurationName
    """What combinations with these settings are called by."""


class Configuration(Part):
    name: ConfigurationName
    prompt: PromptName | None = None
    """``assistant``, or one version of it: ``assistant@v2``; the graph's default where nothing is said."""
    model: ModelName | None = None
    """The prompt's, or the graph's default where nothing is said."""
    settings: SettingsConfig = SettingsConfig()
    tools: ToolMode | None = None
    """As the run says where nothing is said."""
    only: tuple[str, ...] | None = Field(default=None, max_length=200)
    """Names of the tools that are offered, or of their servers; all that the role may use where nothing is said."""
    note: str = ""

    @property
    def prompt_name(self) -> str | None:
        return self.prompt.partition("@")[0] if self.prompt else None

    @property
    def prompt_version(self) -> str | None:
        return (self.prompt.partition("@")[2] or None) if self.prompt else None


class Matrix(Part):
    """Every combination of what is named here. What has but one value, or none, is in no name."""

    prompts: tuple[PromptName, ...] = Field(default=(), max_length=50)
    models: tuple[ModelName, ...] = Field(default=(), max_length=50)
    settings: tuple[NamedSettings, ...] = Field(default=(), max_length=50)
    tools: tuple[ToolMode, ...] = Field(default=(), max_length=4)

    @model_validator(mode="after")
    def _has_something(self) -> Matrix:
        if not (self.prompts or self.models or self.settings or self.tools):
            raise ValueError("the matrix is empty; name prompts, models, settings or tools")
        return self

    def combinations(self) -> tuple[Configuration, ...]:
        """The first of each axis first, the last axis changing fastest."""
        axes: list[tuple[Any, ...]] = [self.prompts, self.models, self.settings, self.tools]
        varying = [len(axis) > 1 for axis in axes]
        found = []
        for values in itertools.product(*(axis or (None,) for axis in axes)):
            prompt, model, settings, tools = values
            words = (prompt, model, settings.name if settings else None, tools)
            name = "+".join(str(word) for word, varies in zip(words, varying, strict=True) if varies and word)
            found.append(
                Configuration(
                    name=name or "only",
                    prompt=prompt,
                    model=model,
                    settings=SettingsConfig(**settings.model_dump(exclude={"name"})) if settings else SettingsConfig(),
                    tools=tools,
                )
            )
        return tuple(found)
