"""A turn: one accepted input on its way to exactly one terminal event.

accepted ─claim─► running ─► completed | failed | cancelled
                    │  ▲
                    └──┘ taken over: the lease expired, a new owner claimed it with the next epoch
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from serve_app.domain.conversation import Conversation, Message, Part, SessionPrompt
from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.usage import Usage

TurnState = Literal["accepted", "running", "completed", "failed", "cancelled"]
TERMINAL_STATES: frozenset[TurnState] = frozenset({"completed", "failed", "cancelled"})


class Query(Struct, frozen=True, kw_only=True):
    """What the user sent. Two queries are the same exactly when they compare equal."""

    content: str
    model_id: str | None = None
    tool_id: str | None = None
    attachments: tuple[str, ...] = ()


class Owner(Struct, frozen=True, kw_only=True):
    """The Turns replica that runs a turn: its id, and the channel endpoint at which its live tail is served."""

    replica_id: str
    endpoint: str


class StepRecord(Struct, frozen=True, kw_only=True):
    """A checkpoint: one completed model call with its tool results. It is never run again.

    ``parts`` are what the step adds to the assistant message; the times show where a turn spent itself.
    """

    step: int
    attempt: int
    parts: tuple[Part, ...]
    usage: Usage
    finish_reason: str
    model_id: str
    last_seq: int
    model_ms: int = 0
    first_delta_ms: int | None = None
    tools_ms: int = 0


class Turn(Struct, frozen=True, kw_only=True):
    """A turn's record in the store. ``deadline`` is an instant in Unix seconds."""

    key: TurnKey
    principal: Principal
    query: Query
    created_at: datetime
    deadline: float
    client_turn_id: str | None = None
    request_id: str = ""
    state: TurnState = "accepted"
    epoch: int = 0
    last_seq: int = 0
    attempts: int = 0
    """How many claims have been made since the last checkpoint."""
    owner: Owner | None = None
    cancel_requested: bool = False
    steps: tuple[StepRecord, ...] = ()
    usage: Usage = Usage()
    finished_at: datetime | None = None
    timings_ms: dict[str, int] = {}

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES


class NewTurn(Struct, frozen=True, kw_only=True):
    """Everything that is accepted in one transaction: idempotency row, user message, turn, and its first event."""

    key: TurnKey
    principal: Principal
    query: Query
    created_at: datetime
    deadline: float
    client_turn_id: str | None = None
    request_id: str = ""


class AcceptedTurn(Struct, frozen=True, kw_only=True):
    """``created`` is False when the same input had been accepted before: its turn is given again."""

    turn: Turn
    created: bool


class TurnClaim(Struct, frozen=True, kw_only=True):
    """What an owner gets with the lease: the turn, its conversation, and the newest messages before it, oldest first."""

    turn: Turn
    conversation: Conversation
    history: tuple[Message, ...]


class FinishTurn(Struct, frozen=True, kw_only=True):
    """The end of a turn, written in one transaction with its terminal event."""

    state: TurnState
    message: Message
    usage: Usage
    model_id: str | None = None
    timings_ms: dict[str, int] = {}


class AppendTurn(Struct, frozen=True, kw_only=True):
    """One turn's share of an append. Without records it renews the lease and hears control signals."""

    key: TurnKey
    epoch: int
    lease_s: float
    records: tuple[EventRecord, ...] = ()
    step: StepRecord | None = None
    session_prompt: SessionPrompt | None = None
    finish: FinishTurn | None = None


class AppendReply(Struct, frozen=True, kw_only=True):
    """``lost``: the epoch is no longer the turn's and nothing was written. ``cancel_requested`` is control coming back."""

    turn_id: str
    status: Literal["ok", "lost"]
    last_seq: int = 0
    cancel_requested: bool = False


class EventPage(Struct, frozen=True, kw_only=True):
    """A stretch of a turn's log after a cursor, and the turn as it was when read."""

    turn: Turn
    records: tuple[EventRecord, ...]
