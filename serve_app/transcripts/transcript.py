"""A conversation as it was held: who said what, which tools were called, and when.

The form that every file of conversations is read into, whatever it was written by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]


class CalledTool(Struct, frozen=True):
    """A tool as it was called. ``result`` is None where it was not recorded."""

    name: str
    arguments: Any = None
    result: Any = None
    ok: bool = True


class Line(Struct, frozen=True):
    """One message. ``at`` and ``ended_at`` are Unix seconds: when it was sent, and (an answer's) when it was complete."""

    role: Role
    text: str = ""
    tool_calls: tuple[CalledTool, ...] = ()
    at: float | None = None
    ended_at: float | None = None


class Said(Struct, frozen=True):
    """A question of the user's. ``pause_s`` is how long they took after the answer before it; None where it is not known."""

    text: str
    pause_s: float | None = None


class Transcript(Struct, frozen=True):
    """``lines`` in order; ``source`` is file and line (or place) that it was read from."""

    lines: tuple[Line, ...]
    id: str = ""
    source: str = ""

    def questions(self) -> Sequence[Said]:
        """What the user said, with the pauses before it; the first one has none."""
        found: list[Said] = []
        before: float | None = None
        for line in self.lines:
            if line.role == "user" and line.text:
                pause_s = None if line.at is None or before is None else max(0.0, line.at - before)
                found.append(Said(line.text, pause_s))
            before = line.ended_at if line.ended_at is not None else line.at
        return found
