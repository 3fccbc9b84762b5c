"""What a client has of one turn: its events by number, merged over every connection, in either encoding.

The AI SDK's chunks are read back into the events they stand for, as far as they carry them, so that a turn that began in one
encoding can go on in the other and still be one text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

TERMINAL = ("chat_response", "turn.failed", "turn.cancelled")


@dataclass(frozen=True)
class Arrival:
    """An event's first arrival, on the monotonic clock."""

    seq: int
    at: float


@dataclass
class Transcript:
    """Events of one turn. What does not fit the protocol is kept in ``violations`` and not raised: it is counted later."""

    turn_id: str = ""
    events: dict[int, Json] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    repeated: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def cursor(self) -> int:
        """The highest number there is."""
        return max(self.events, default=0)

    @property
    def terminal(self) -> Json | None:
        return next((event for event in self.events.values() if event["type"] in TERMINAL), None)

    @property
    def text(self) -> str:
        return shown_text([self.events[seq] for seq in sorted(self.events)])

    @property
    def resets(self) -> int:
        return sum(event["type"] == "step.reset" for event in self.events.values())

    def add(self, event: Json, at: float) -> bool:
        """One event with its ``seq``; whether it is new. One that is known must say the same again."""
        seq = event["seq"]
        known = self.events.get(seq)
        if known is not None:
            self.repeated += 1
            if (differs := difference(known, event)) is not None:
                self.violations.append(f"event {seq} of {self.turn_id} came twice and differs: {differs}")
            elif len(event) > len(known):
                self.events[seq] = event  # the other encoding says more
            return False
        if (end := self.terminal) is not None and seq > end["seq"]:
            self.violations.append(f"event {seq} of {self.turn_id} came after its end: {event['type']}")
        self.events[seq] = event
        self.arrivals.append(Arrival(seq, at))
        return True


@dataclass
class ChunkReader:
    """One response of the AI SDK's stream, read as its client reads it and turned back into events."""

    texts: dict[str, str] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    turn_id: str = ""
    finished: bool = False
    """A ``finish`` that carries the number of the terminal event."""
    _ending: str = "chat_response"
    _calls: dict[str, Json] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the AI SDK's client would show."""
        return "".join(text for part, text in self.texts.items() if part not in self.void)

    def read(self, event_id: str | None, chunk: Json) -> Json | None:
        """The event that this chunk completes, if it does."""
        kind = chunk["type"]
        match kind:
            case "text-start":
                self.texts[chunk["id"]] = ""
            case "text-delta":
                self.texts[chunk["id"]] += chunk["delta"]
            case "data-step-reset":
                self.void.update(chunk["data"]["textIds"])
            case "tool-input-start":
                self._calls[chunk["toolCallId"]] = {"tool_call_id": chunk["toolCallId"], "name": chunk["toolName"]}
            case "error":
                self._ending = "turn.failed"
            case "abort":
                self._ending = "turn.cancelled"
        if event_id is None:
            return None
        self.turn_id, _, number = event_id.rpartition(":")
        event = self._event(kind, chunk) | {"seq": int(number), "turn_id": self.turn_id}
        self.finished = self.finished or kind == "finish"
        return event

    def _event(self, kind: str, chunk: Json) -> Json:
        match kind:
            case "text-delta":
                return {"type": "text.delta", "delta": chunk["delta"]}
            case "tool-input-available":
                return {"type": "tool.started", **self._calls[chunk["toolCallId"]], "arguments": chunk["input"]}
            case "tool-output-available" | "tool-output-error":
                call = self._calls[chunk["toolCallId"]]
                return {"type": "tool.finished", **call, "ok": kind == "tool-output-available"}
            case "data-step-reset":
                return {"type": "step.reset", "step": chunk["data"]["step"]}
            case "finish":
                return {"type": self._ending}
        return {"type": "turn.started"}


def shown_text(events: list[Json]) -> str:
    """The deltas since the last reset of each step, joined. A step ends with the results of its tools."""
    steps: list[list[str]] = [[]]
    running: set[str] = set()
    for event in events:
        match event["type"]:
            case "text.delta":
                steps[-1].append(event["delta"])
            case "tool.started":
                running.add(event["tool_call_id"])
            case "tool.finished":
                running.discard(event["tool_call_id"])
                if not running:
                    steps.append([])
            case "step.reset":
                steps[-1].clear()
                running.clear()
    return "".join(piece for step in steps for piece in step)


def difference(one: Json, other: Json) -> str | None:
    """Where two versions of an event disagree in what both say."""
    for name in one.keys() & other.keys():
        if one[name] != other[name]:
            return f"{name} is {json.dumps(one[name])[:120]} and {json.dumps(other[name])[:120]}"
    return None
