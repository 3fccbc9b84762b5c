"""What a tool says of itself, and who judges whether it may be used so (``tool_pins`` keeps what was judged)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class ToolWords(Struct, frozen=True, kw_only=True):
    """What a tool says of itself. ``digest`` is over all of it, ``description`` not cut."""

    name: str
    description: str
    input_schema: dict[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(_ENCODE([self.name, self.description, self.input_schema])).hexdigest()


class Pins(Protocol):
    """Which tools may be used as they describe themselves now."""

    async def judge(self, tools: Sequence[ToolWords]) -> frozenset[str]:
        """The names of those that may not. First-seen ones are pinned. Raises what the store raises."""


class NoPins:
    async def judge(self, tools: Sequence[ToolWords]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()
