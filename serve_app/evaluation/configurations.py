"""What is compared: a prompt, a model, its settings and its tools, under one name; and every combination of several of them."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import Field, model_validator

from serve_app.domain.trial import ToolMode
from serve_app.turns.trial_config import Candidate, ModelName, Part, PromptName, SettingsConfig


class NamedSettings(SettingsConfig):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@:/+-]{0,127}$")
    """What combinations with these settings are called by."""


class Configuration(Candidate):
    tools: ToolMode | None = None
    """As the run says where nothing is said."""
    only: tuple[str, ...] | None = Field(default=None, max_length=200)
    """Names of the tools that are offered, or of their servers; all that the role may use where nothing is said."""
    note: str = ""


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
