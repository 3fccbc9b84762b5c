"""All prompts of a folder, read at start and read again when their files change.

    <folder>/<name>/<version>/prompt.md

The newest version of a name by natural order (v2 before v10) is the one in use. Files are looked at on use, at most
every few seconds: no thread watches them. An edit that cannot be used leaves the last good version in place, is logged
once and listed by ``problems``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from serve_app.errors import ConfigError, NotFound
from serve_app.prompting.source import read_prompt
from serve_app.prompting.template import PromptTemplate
from serve_app.telemetry import logger

FILE_NAME = "prompt.md"
MAX_PROMPTS = 1_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

_Stamp = tuple[int, int, int]
"""Time of change in ns, size in bytes, inode: what differs when a file was written or replaced."""

_log = logger("prompting")


class _Entry(Struct):
    """What is known of one file. ``template`` is the last good version, if there ever was one."""

    stamp: _Stamp | None
    template: PromptTemplate | None
    problem: str | None = None


class PromptLibrary:
    """Looks prompts up by name and roles. ``required`` names must exist at all times. For one thread.

    Raises ConfigError when a prompt cannot be used or a required one is missing: at start that is critical.
    """

    def __init__(
        self,
        folder: Path,
        *,
        required: Iterable[str] = (),
        scan_every_s: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._required = tuple(required)
        self._scan_every_s = scan_every_s
        self._monotonic = monotonic
        self._entries: dict[Path, _Entry] = {}
        self._newest: dict[str, PromptTemplate] = {}
        self._folder_problem: str | None = None
        self._read_changes()
        self._scanned_at = monotonic()
        if problems := self.problems():
            more = f" There are {len(problems) - 1} more problems with prompts." if len(problems) > 1 else ""
            raise ConfigError(problems[0] + more)

    def find(self, name: str, roles: tuple[str, ...]) -> PromptTemplate:
        """The newest version of a prompt that somebody with ``roles`` may use.

        Raises the same NotFound for a prompt that does not exist and for one that is not theirs.
        """
        found = self.own(name)
        if not found.allows(roles):
            raise _not_found()
        return found

    def own(self, name: str) -> PromptTemplate:
        """The newest version of a prompt for the program's own use, whatever its roles. Raises NotFound."""
        self._refresh()
        found = self._newest.get(name)
        if found is None:
            raise _not_found()
        return found

    def problems(self) -> list[str]:
        """A sentence for everything that is wrong with the files now; empty when all is well."""
        files = [entry.problem for _, entry in sorted(self._entries.items()) if entry.problem]
        return [*files, self._folder_problem] if self._folder_problem else files

    def _refresh(self) -> None:
        now = self._monotonic()
        if now - self._scanned_at < self._scan_every_s:
            return
        self._scanned_at = now
        before = set(self.problems())
        self._read_changes()
        for problem in self.problems():
            if problem not in before:
                _log.error("prompt_kept_last_good", problem=problem)

    def _read_changes(self) -> None:
        try:
            seen = _scan(self._folder)
        except ConfigError as error:
            # A folder that is gone for a moment (a volume mounted anew) must not take the prompts away.
            self._folder_problem = error.message
            return
        entries: dict[Path, _Entry] = {}
        for path, stamp in seen.items():
            known = self._entries.get(path)
            if known is None or known.stamp != stamp:
                known = _load(path, stamp, known.template if known else None)
            entries[path] = known
        newest = _newest(entries.values())
        self._folder_problem = None
        for name in self._required:
            if name not in newest:
                self._folder_problem = self._missing(name, newest)
                if name in self._newest:
                    newest[name] = self._newest[name]
        self._entries, self._newest = entries, newest

    def _missing(self, name: str, newest: dict[str, PromptTemplate]) -> str:
        there = ", ".join(sorted(newest)) or "none"
        return (
            f"The prompt '{name}' is needed but not in {self._folder} (there: {there}); add "
            f"{self._folder / name / 'v1' / FILE_NAME}, or correct PARLEY_PROMPTS_DIR or PARLEY_CONVERSATION__PROMPT."
        )


def natural_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts v2 before v10, and a prefix before what continues it."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", version)
    return tuple((1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces)


def _scan(folder: Path) -> dict[Path, _Stamp | None]:
    """Every prompt file that is or should be there; the stamp is None for one that should be."""
    found: dict[Path, _Stamp | None] = {}
    try:
        for name in _folders(folder):
            for version in _folders(name) or [name / "v1"]:
                path = version / FILE_NAME
                found[path] = _stamp(path)
                if len(found) > MAX_PROMPTS:
                    raise ConfigError(f"The prompts folder {folder} has more than {MAX_PROMPTS} prompts; remove some.")
    except OSError as error:
        raise ConfigError(
            f"The prompts folder {folder} cannot be read: {error.strerror}; correct PARLEY_PROMPTS_DIR or the folder."
        ) from error
    return found


def _folders(folder: Path) -> list[Path]:
    # Editors and volume mounts keep their own entries, which begin with a dot.
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")) and path.is_dir())


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _load(path: Path, stamp: _Stamp | None, last_good: PromptTemplate | None) -> _Entry:
    name, version = path.parent.parent.name, path.parent.name
    try:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"The prompt folder {path.parent.parent} has a bad name; use a-z, 0-9, '-' and '_' only.")
        if not _VERSION.fullmatch(version):
            raise ConfigError(f"The prompt folder {path.parent} has a bad name; call it v1, v2, … .")
        if stamp is None:
            raise ConfigError(f"The prompt {path} does not exist; write it, or remove its folder.")
        return _Entry(stamp=stamp, template=read_prompt(path, name=name, version=version))
    except ConfigError as error:
        return _Entry(stamp=stamp, template=last_good, problem=error.message)


def _newest(entries: Iterable[_Entry]) -> dict[str, PromptTemplate]:
    newest: dict[str, PromptTemplate] = {}
    for entry in entries:
        if (template := entry.template) is None:
            continue
        other = newest.get(template.name)
        if other is None or natural_order(template.version) > natural_order(other.version):
            newest[template.name] = template
    return newest


def _not_found() -> NotFound:
    return NotFound("There is no such prompt.")
