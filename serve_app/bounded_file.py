"""Files that somebody else has written, read no further than they may be long."""

from __future__ import annotations

from pathlib import Path

from serve_app.errors import ConfigError


def bounded_content(path: Path, called: str, max_bytes: int) -> bytes:
    """The file's bytes. Raises ConfigError, beginning with what the file is ``called``, where it cannot be read or is larger."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"The {called} {path} cannot be read ({error.strerror}).") from error
    if len(content) > max_bytes:
        raise ConfigError(f"The {called} {path} is larger than {max_bytes:,} bytes.")
    return content
