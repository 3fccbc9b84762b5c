"""Tool names as a provider allows them, and back.

Ours are ``server.tool``; OpenAI's wire allows letters, digits, ``_`` and ``-``, 64 at most. The dot becomes ``__``; where
that is too long, or two tools would share a name, the end is a hash of the full name. The mapping lives for one request
and covers the names in its history as well, whose tools may be gone by now, or never were: those never change the name of
a tool that is offered.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

MAX_CHARS = 64
_HASH_CHARS = 8
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")


class ToolNames:
    """A reversible mapping between full names and the names on the wire, for the tools of one request."""

    def __init__(self, full_names: Iterable[str], mentioned: Iterable[str] = ()) -> None:
        """``full_names`` are the tools offered, ``mentioned`` the names in the history."""
        self._to_wire: dict[str, str] = {}
        self._to_full: dict[str, str] = {}
        names = list(dict.fromkeys(full_names))
        plain = [_plain(name) for name in names]
        uses = Counter(plain)
        for full, wire in zip(names, plain, strict=True):
            if len(wire) > MAX_CHARS or not wire or uses[wire] > 1:
                wire = _hashed(full, wire)
            self._to_wire[full] = wire
            self._to_full[wire] = full
        for full in mentioned:
            if full not in self._to_wire:
                wire = _plain(full)
                self._to_wire[full] = wire if 0 < len(wire) <= MAX_CHARS else _hashed(full, wire)

    def wire(self, full_name: str) -> str:
        """The provider's name of a tool of this request. Raises KeyError for any other."""
        return self._to_wire[full_name]

    def full(self, wire_name: str) -> str:
        """Our name of a tool. A name the model made up comes back as it is: it is no tool, and its caller will say so."""
        return self._to_full.get(wire_name, wire_name)


def _plain(full_name: str) -> str:
    return _NOT_ALLOWED.sub("_", full_name.replace(".", "__"))


def _hashed(full_name: str, wire: str) -> str:
    digest = hashlib.sha256(full_name.encode()).hexdigest()[:_HASH_CHARS]
    return f"{wire[: MAX_CHARS - _HASH_CHARS - 1]}_{digest}"
