"""An operator's YAML file that holds a mapping, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigError


def read_mapping(path: Path, called: str, holding: str = "a mapping", remedy: str = "") -> dict[str, Any]:
    """The file's values. Raises ConfigError that begins with what the file is ``called`` and where it is; ``holding`` says what
    it must hold, ``remedy`` what to do where it cannot be read.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The {called} {path} cannot be read: {error.strerror}{remedy}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {called} {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"The {called} {path} must hold {holding}.")
    return loaded
