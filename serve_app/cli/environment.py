"""The one place where ``.env`` becomes part of the environment, before any setting is read."""

from __future__ import annotations

from pathlib import Path

from serve_app.errors import ConfigError

FILE_NAME = ".env"


def read_dotenv() -> None:
    """Adds what ``.env`` in the working folder says; variables that are set already win. Without the file nothing happens.

    Raises ConfigError for a file that cannot be read.
    """
    path = Path.cwd() / FILE_NAME
    if not path.is_file():
        return
    from dotenv import load_dotenv

    try:
        load_dotenv(path, override=False)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text without null bytes"
        raise ConfigError(f"The file {path} cannot be read ({reason}); correct or remove it.") from error
