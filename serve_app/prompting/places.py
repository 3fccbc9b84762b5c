"""Where prompts lie, as the library looks at them: a folder, or a container of Blob Storage (``container``)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import Protocol

from serve_app.errors import ConfigError
from serve_app.prompting.source import MAX_FILE_BYTES

FILE_NAME = "prompt.md"
MAX_PROMPTS = 1_000


class PromptPlace(Protocol):
    """``<root>/<name>/<version>/prompt.md``. ``setting`` names it to the operator. Neither method waits for the network."""

    @property
    def root(self) -> PurePath: ...

    @property
    def setting(self) -> str: ...

    def scan(self) -> Mapping[PurePath, Hashable | None]:
        """Every prompt file that is or should be there. What it is mapped to differs once the file does; None for one that
        should be there. The very same object again says that nothing has changed. Raises ConfigError while it is away.
        """

    def read(self, path: PurePath) -> bytes:
        """One of those files, cut where it is longer than a prompt may be. Raises ConfigError."""


class PromptFolder:
    """A folder of this machine. Files are looked at; nothing is watched."""

    setting = "PARLEY_PROMPTS_DIR"

    def __init__(self, root: Path) -> None:
        self.root = root

    def scan(self) -> Mapping[PurePath, Hashable | None]:
        found: dict[PurePath, Hashable | None] = {}
        try:
            for name in _folders(self.root):
                for version in _folders(name) or [name / "v1"]:
                    path = version / FILE_NAME
                    found[path] = _stamp(path)
                    if len(found) > MAX_PROMPTS:
                        raise too_many_prompts(f"folder {self.root}")
        except OSError as error:
            raise ConfigError(
                f"The prompts folder {self.root} cannot be read: {error.strerror}; correct {self.setting} or the folder."
            ) from error
        return found

    def read(self, path: PurePath) -> bytes:
        try:
            with Path(path).open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"The prompt {path} cannot be read: {error.strerror}; check the file.") from error


def too_many_prompts(where: str) -> ConfigError:
    return ConfigError(f"The prompts {where} has more than {MAX_PROMPTS} prompts; remove some.")


def is_own(name: str) -> bool:
    """Editors and volume mounts keep their own entries, which begin with a dot."""
    return not name.startswith((".", "_"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_own(path.name) and path.is_dir())


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Time of change in ns, size in bytes, inode: what differs when a file was written or replaced."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
