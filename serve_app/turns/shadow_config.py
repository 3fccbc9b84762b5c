"""What is tried on live turns without anybody seeing it: the file that ``PARLEY_SHADOW`` names."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from serve_app.errors import ConfigError
from serve_app.settings import Settings
from serve_app.turns.trial_config import Candidate, Part
from serve_app.yaml_files import read_mapping
from serve_app.yaml_places import problem

LIVE = "live"
"""The configuration that users are answered by, in a report: no candidate is called so."""


class ShadowConfig(Part):
    share: float = Field(gt=0, le=1)
    """Of the live turns that are completed, how many are mirrored."""
    max_per_hour: int = Field(default=200, ge=1, le=100_000)
    """Turns that one Turns replica mirrors in an hour at most."""
    keep: int = Field(default=500, ge=1, le=100_000)
    """Mirrored turns that are kept of each tenant; newer ones take the place of older ones."""
    tenants: tuple[str, ...] = Field(default=(), max_length=1_000)
    """Only theirs; all where nothing is said."""
    roles: tuple[str, ...] = Field(default=(), max_length=100)
    """Only of users who have one of them; of all where nothing is said."""
    candidates: tuple[Candidate, ...] = Field(min_length=1, max_length=8)
    """Each mirrored turn is asked of every one of them."""

    @model_validator(mode="after")
    def _names_are_names(self) -> ShadowConfig:
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError("two candidates have the same name")
        if LIVE in names:
            raise ValueError(f"'{LIVE}' is what users are answered by; call the candidate otherwise")
        return self


def load_shadow(settings: Settings) -> ShadowConfig | None:
    """What the settings say; None where nothing is mirrored. Raises ConfigError, with the place in the file and what to do."""
    if settings.shadow is None:
        return None
    path = settings.path(settings.shadow)
    values = read_mapping(path, "shadow file", "a mapping with share and candidates", "; correct PARLEY_SHADOW")
    try:
        return ShadowConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"The shadow file {path}, {problem(_tree(path), error)}") from None


def _tree(path: Path) -> yaml.Node | None:
    return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
