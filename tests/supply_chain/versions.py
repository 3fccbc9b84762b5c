"""Locked and installed versions, held against the table of those that are known to be unsafe below."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import yaml
from msgspec import Struct, convert
from packaging.utils import canonicalize_name
from packaging.version import Version

TABLE = Path(__file__).with_name("minimum_versions.yaml")

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)

Found = tuple[str, Version, str]
"""A package's canonical name, a version of it, and where that was found."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    minimum: str
    advisories: tuple[str, ...]


def table(path: Path = TABLE) -> dict[str, Row]:
    """The rows by canonical name. Raises msgspec.ValidationError for one that is not as it must be."""
    rows = convert(yaml.safe_load(path.read_text(encoding="utf-8")), dict[str, Row])
    return {canonicalize_name(name): row for name, row in rows.items()}


def locked(path: Path) -> list[Found]:
    """What a lock file pins. Raises ValueError for a file that pins nothing, or pins without a hash."""
    text = path.read_text(encoding="utf-8")
    pins = list(_LOCKED.finditer(text))
    if not pins:
        raise ValueError(f"{path.name} pins nothing")
    for pin, end in zip(pins, [*(one.start() for one in pins[1:]), len(text)], strict=True):
        if "--hash=sha256:" not in text[pin.end() : end]:
            raise ValueError(f"{path.name} pins {pin[1]} without a hash")
    return [(canonicalize_name(pin[1]), Version(pin[2]), path.name) for pin in pins]


def installed() -> list[Found]:
    return [(canonicalize_name(one.name), Version(one.version), "installed") for one in distributions() if one.name]


def unsafe(rows: dict[str, Row], found: Iterable[Found]) -> list[str]:
    """A sentence for each version that is older than its row allows, and for each row about nothing that was found."""
    everything = list(found)
    problems = [
        f"{name} {version} ({where}) is older than {row.minimum}: {', '.join(row.advisories)}"
        for name, version, where in everything
        if (row := rows.get(name)) is not None and version < Version(row.minimum)
    ]
    seen = {name for name, _, _ in everything}
    return problems + [
        f"{name} is in the table and nowhere else: correct its name or remove it" for name in sorted(set(rows) - seen)
    ]
