"""All prompts of one place, read at start and read again when their files change.

    <folder or container>/<name>/<version>/prompt.md

The newest version of a name by natural order (v2 before v10) that is no draft is the one in use. Files are looked at on use,
at most every few seconds: no thread watches them. An edit that cannot be used leaves the last good version in place, is
logged once and listed by ``problems``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath

from msgspec import Struct

from serve_app.errors import ConfigError, NotFound
from serve_app.prompting.places import FILE_NAME, PromptFolder, PromptPlace
from serve_app.prompting.source import parse_prompt
from serve_app.prompting.template import PromptTemplate
from serve_app.telemetry import logger

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

_log = logger("prompting")


class _Entry(Struct):
    """What is known of one file. ``template`` is the last good version, if there ever was one."""

    stamp: Hashable | None
    template: PromptTemplate | None
    problem: str | None = None


class PromptLibrary:
    """Looks prompts up by name and roles. ``required`` names must exist at all times. For one thread.

    The place is looked at every ``scan_every_s`` at most.

    Raises ConfigError when a prompt cannot be used or a required one is missing: at start that is critical.
    """

    def __init__(
        self,
        place: Path | PromptPlace,
        *,
        required: Iterable[str] = (),
        scan_every_s: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place: PromptPlace = PromptFolder(place) if isinstance(place, Path) else place
        self._seen: Mapping[PurePath, Hashable | None] = {}
        self._required = tuple(required)
        self._scan_every_s = scan_every_s
        self._monotonic = monotonic
        self._entries: dict[PurePath, _Entry] = {}
        self._newest: dict[str, PromptTemplate] = {}
        self._folder_problem: str | None = None
        self._read_changes()
        self._scanned_at = monotonic()
        if problems := self.problems():
            more = f" There are {len(problems) - 1} more problems with prompts." if len(problems) > 1 else ""
            raise ConfigError(problems[0] + more)

    def find(self, name: str, roles: tuple[str, ...], version: str | None = None) -> PromptTemplate:
        """The version in use of a prompt that somebody with ``roles`` may use, or the one that is named.

        Raises the same NotFound for a prompt that does not exist and for one that is not theirs, and one that says which
        versions there are for a version that is not there.
        """
        found = self.own(name) if version is None else self._version(name, version)
        if not found.allows(roles):
            raise _not_found()
        return found

    def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions of every prompt by name: the one in use, then the others, drafts too, newest first."""
        self._refresh()
        found: dict[str, list[str]] = {}
        for template in self._templates():
            found.setdefault(template.name, []).append(template.version)
        for name, versions in found.items():
            versions.sort(key=natural_order, reverse=True)
            if (used := self._newest.get(name)) is not None and used.version in versions:
                versions.remove(used.version)
                versions.insert(0, used.version)
        return {name: tuple(versions) for name, versions in sorted(found.items())}

    def _version(self, name: str, version: str) -> PromptTemplate:
        versions = self.versions().get(name)
        if versions is None:
            raise _not_found()
        for template in self._templates():
            if (template.name, template.version) == (name, version):
                return template
        there = ", ".join(sorted(versions, key=natural_order))
        raise NotFound(f"The prompt '{name}' has no version '{version[:32]}'; there are {there}.")

    def _templates(self) -> Iterator[PromptTemplate]:
        return (entry.template for entry in self._entries.values() if entry.template is not None)

    def names(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The prompts that somebody with ``roles`` may use."""
        self._refresh()
        return tuple(sorted(name for name, template in self._newest.items() if template.allows(roles)))

    def own(self, name: str) -> PromptTemplate:
        """The version in use of a prompt for the program's own use, whatever its roles. Raises NotFound."""
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
            seen = self._place.scan()
        except ConfigError as error:
            # A folder that is gone for a moment (a volume mounted anew) must not take the prompts away.
            self._folder_problem = error.message
            return
        if seen is self._seen and self._folder_problem is None:
            return
        entries: dict[PurePath, _Entry] = {}
        for path, stamp in seen.items():
            known = self._entries.get(path)
            if known is None or known.stamp != stamp:
                known = self._load(path, stamp, known.template if known else None)
            entries[path] = known
        newest = _newest(entries.values())
        self._folder_problem = None
        for name in self._required:
            if name not in newest:
                self._folder_problem = self._missing(name, newest)
                if name in self._newest:
                    newest[name] = self._newest[name]
        self._entries, self._newest, self._seen = entries, newest, seen

    def _missing(self, name: str, newest: dict[str, PromptTemplate]) -> str:
        there = ", ".join(sorted(newest)) or "none"
        return (
            f"The prompt '{name}' is needed but not in {self._place.root} (there: {there}); add "
            f"{self._place.root / name / 'v1' / FILE_NAME}, or correct {self._place.setting} or PARLEY_CONVERSATION__PROMPT."
        )

    def _load(self, path: PurePath, stamp: Hashable | None, last_good: PromptTemplate | None) -> _Entry:
        name, version = path.parent.parent.name, path.parent.name
        try:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"The prompt folder {path.parent.parent} has a bad name; use a-z, 0-9, '-' and '_' only."
                )
            if not _VERSION.fullmatch(version):
                raise ConfigError(f"The prompt folder {path.parent} has a bad name; call it v1, v2, … .")
            if stamp is None:
                raise ConfigError(f"The prompt {path} does not exist; write it, or remove its folder.")
            template = parse_prompt(path, self._place.read(path), name=name, version=version)
            return _Entry(stamp=stamp, template=template)
        except ConfigError as error:
            return _Entry(stamp=stamp, template=last_good, problem=error.message)


def natural_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts v2 before v10, and a prefix before what continues it."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", version)
    return tuple((1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces)


def _newest(entries: Iterable[_Entry]) -> dict[str, PromptTemplate]:
    newest: dict[str, PromptTemplate] = {}
    for entry in entries:
        template = entry.template
        if template is None or template.draft:
            continue
        other = newest.get(template.name)
        if other is None or natural_order(template.version) > natural_order(other.version):
            newest[template.name] = template
    return newest


def _not_found() -> NotFound:
    return NotFound("There is no such prompt.")
