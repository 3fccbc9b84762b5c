"""The last requests a provider served, kept for tests and for curious users (`GET /_sim/requests`)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec

MAX_ENTRIES: Final = 200
MAX_KEPT_BODY_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class Entry:
    """One served request. The body is kept as it came and decoded only when somebody looks."""

    id: str
    path: str
    model: str
    stream: bool
    tools: tuple[str, ...]
    body: bytes | None
    source: str = ""
    status: int = 200
    chunks_sent: int = 0
    finish_reason: str | None = None
    finished: bool = False
    disconnected: bool = False

    def as_json(self) -> dict[str, Any]:
        """What `GET /_sim/requests` shows; `messages` is null when the body was too large to keep."""
        messages = msgspec.json.decode(self.body)["messages"] if self.body is not None else None
        return {
            "id": self.id, "path": self.path, "model": self.model, "stream": self.stream, "tools": list(self.tools),
            "messages": messages, "source": self.source, "status": self.status, "chunks_sent": self.chunks_sent,
            "finish_reason": self.finish_reason, "finished": self.finished, "disconnected": self.disconnected,
        }  # fmt: skip


class Journal:
    """A ring of the last 200 requests; at most 12.5 MiB of bodies."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)

    def open(self, entry: Entry) -> Entry:
        """Add an entry; its owner fills it in while it answers."""
        if entry.body is not None and len(entry.body) > MAX_KEPT_BODY_BYTES:
            entry.body = None
        self._entries.append(entry)
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """All entries, the oldest first."""
        return [entry.as_json() for entry in self._entries]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
