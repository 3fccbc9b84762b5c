"""The client-side ledger: what was sent, what was acknowledged, what was seen, and what went wrong on the way."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Literal

from tests.chaos.models import Model
from tests.chaos.transcript import Json, Transcript

Transport = Literal["websocket", "sse"]
TURN_S = 120.0
"""Overall deadline of one turn at its client, however often it has to reconnect."""


@dataclass(frozen=True)
class Plan:
    """One message to be sent: once, whatever it takes. The conversation is its own, and so is the request id."""

    model: Model
    transport: Transport
    content: str
    conversation_id: str
    client_turn_id: str
    request_id: str
    seed: int

    @classmethod
    def make(cls, rng: random.Random, model: Model, transport: Transport) -> Plan:
        mark = uuid.UUID(int=rng.getrandbits(128), version=4).hex
        return cls(
            model=model,
            transport=transport,
            content=f"Message {mark}",
            conversation_id=f"chaos-{mark}",
            client_turn_id=f"t-{mark}",
            request_id=f"r-{mark}",
            seed=rng.getrandbits(32),
        )


@dataclass(frozen=True)
class Refusal:
    """An answer that says no, before or after the turn was accepted."""

    at: float
    code: str
    message: str
    retryable: bool


@dataclass(frozen=True)
class Break:
    """A connection that ended before the turn did, or could not be made."""

    at: float
    reason: str


@dataclass
class Entry:
    """One message's line in the ledger. Times are seconds of the monotonic clock."""

    plan: Plan
    sent_at: float = 0.0
    acked_at: float | None = None
    ended_at: float | None = None
    sends: int = 0
    resumes: int = 0
    breaks: list[Break] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    gave_up: str | None = None
    told_to_reconnect: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.acked_at is not None

    @property
    def over(self) -> bool:
        """Whether the client has nothing left to do."""
        return self.transcript.terminal is not None or self.gave_up is not None

    @property
    def outcome(self) -> str:
        """Type of the terminal event, or that there is none."""
        end = self.transcript.terminal
        return end["type"] if end is not None else "no end"

    def take(self, event: Json) -> bool:
        """An event that came; whether it is new."""
        now = time.monotonic()
        if not self.transcript.turn_id:
            self.transcript.turn_id = event["turn_id"]
        if event["turn_id"] != self.transcript.turn_id:
            self.transcript.violations.append(
                f"one message made two turns: {self.transcript.turn_id} and {event['turn_id']}"
            )
            return False
        if self.acked_at is None:
            self.acked_at = now
        new = self.transcript.add(event, now)
        if self.ended_at is None and self.transcript.terminal is not None:
            self.ended_at = now
        return new

    def broke(self, reason: str) -> None:
        self.breaks.append(Break(time.monotonic(), reason))

    def refused(self, code: str, message: str, retryable: bool) -> None:
        self.refusals.append(Refusal(time.monotonic(), code, message, retryable))


@dataclass
class Backoff:
    """Waits between attempts: doubling, with jitter, bounded; begins again once something was heard."""

    rng: random.Random
    first_s: float = 0.1
    longest_s: float = 2.0
    _next_s: float = 0.1

    def heard(self) -> None:
        self._next_s = self.first_s

    def wait_s(self, at_least_s: float = 0.0) -> float:
        wait = self._next_s * (0.5 + self.rng.random())
        self._next_s = min(self._next_s * 2, self.longest_s)
        return max(at_least_s, wait)
