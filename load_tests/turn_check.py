"""What a client may rely on of one turn's events, checked as they come.

Apart from the load test itself so that it can be tested without one, and without gevent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

TERMINAL = frozenset({"chat_response", "turn.failed", "turn.cancelled"})


class BrokenPromise(Exception):
    """The server did what the protocol says it never does."""


class TurnCheck:
    """Feed it every event of one turn in order of arrival; ``ended`` once the turn is over."""

    def __init__(self) -> None:
        self.sent_at = time.monotonic()
        self.turn_id: str | None = None
        self.last_seq = 0
        self.first_delta_ms: float | None = None
        self.total_ms: float | None = None
        self.text_bytes = 0
        self.failure: str | None = None
        self._steps = [""]

    @property
    def ended(self) -> bool:
        return self.total_ms is not None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Raises BrokenPromise for a gap, a repetition, a second end, or an answer that is not its deltas."""
        kind = event["type"]
        if self.ended:
            raise BrokenPromise(f"{kind} after the turn's end")
        if event["seq"] != self.last_seq + 1:
            raise BrokenPromise(f"seq {event['seq']} after {self.last_seq}")
        if self.turn_id is None:
            self.turn_id = event["turn_id"]
        self.last_seq = event["seq"]
        if kind == "text.delta":
            if self.first_delta_ms is None:
                self.first_delta_ms = self._elapsed_ms()
            self._steps[-1] += event["delta"]
        elif kind == "step.reset":
            self._steps[-1] = ""
        elif kind == "tool.started" and self._steps[-1]:
            self._steps.append("")
        elif kind in TERMINAL:
            self._end(event)

    def _end(self, event: Mapping[str, Any]) -> None:
        self.total_ms = self._elapsed_ms()
        self.text_bytes = len(event["response"].encode())
        if event["type"] == "chat_response" and event["response"] != "".join(self._steps):
            raise BrokenPromise("the answer is not the text that was shown")
        if event["type"] != "chat_response":
            self.failure = f"{event['type']} {event.get('code', '')}".strip()

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self.sent_at) * 1000
