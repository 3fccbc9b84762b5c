"""A turn: one accepted input on its way to exactly one terminal event.

accepted ─claim─► running ─► completed | failed | cancelled
   │  ▲             │  ▲
   └──┘ waits       └──┘ taken over: the lease expired, a new owner claimed it with the next epoch
   until the turns accepted before it have ended
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.conversation import Conversation, Message, Part, SessionPrompt, ToolCallPart, ToolResultPart
from serve_app.domain.events import EventRecord
from serve_app.domain.generation import ModelMessage, ModelSettings, ToolChoice
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.priority import Priority
from serve_app.domain.tools import ToolSpec
from serve_app.domain.trial import Trial
from serve_app.domain.usage import ModelUsage, Usage

TurnState = Literal["accepted", "running", "completed", "failed", "cancelled"]
TERMINAL_STATES: frozenset[TurnState] = frozenset({"completed", "failed", "cancelled"})

OnBusy = Literal["reject", "queue", "interrupt"]
"""What becomes of an input for a conversation with a turn that has not ended: refused; accepted to wait; accepted to wait
while those before it are asked to stop."""


class GivenPrompt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole model request that the caller has written itself, in the place of what the store knows of the conversation.

    ``prompt`` names the assistant that answers: its system prompt comes before ``messages``, and the graph's tools run inside the
    turn. Without one a bare model is shown ``messages`` and nothing else. ``tools`` are the caller's own: a call of one of them
    is never executed here, it ends the turn (``finish_reason`` ``tool_calls``) and is part of the answer. ``parallel_calls``:
    whether there may be more than one such call in an answer. The first ``carried`` messages come from earlier responses.
    ``shown`` is what whoever asks for the answer later is told of the request, in the words it was made in.
    """

    messages: tuple[ModelMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_calls: bool = True
    settings: ModelSettings = ModelSettings()
    response_format: dict[str, Any] | None = None
    prompt: str | None = None
    carried: int = 0
    shown: dict[str, Any] = {}

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.tools)


class Query(Struct, frozen=True, kw_only=True):
    """What the user sent. Two queries are the same exactly when they compare equal.

    With ``given`` the turn is run on that alone, and ``content`` is only what people are shown of it. With ``trial`` it is none
    of a conversation's: what that would bring along is in it. No request can ask for one.
    """

    content: str
    model_id: str | None = None
    tool_id: str | None = None
    attachments: tuple[str, ...] = ()
    given: GivenPrompt | None = None
    trial: Trial | None = None


class Owner(Struct, frozen=True, kw_only=True):
    """The Turns replica that runs a turn: its id, and the channel endpoint at which its live tail is served."""

    replica_id: str
    endpoint: str


class HeldCall(Struct, frozen=True, kw_only=True):
    """A call that has not started because it waits for somebody's approval. Instants are in Unix seconds.

    ``epoch`` is the owner that waits: the checkpoint of one who takes over is another than that of the one before.
    """

    tool_call_id: str
    approval_id: str
    asked_at: float
    expires_at: float
    epoch: int = 0


class StepRecord(Struct, frozen=True, kw_only=True):
    """A checkpoint: one completed model call with its tool results. It is never run again.

    ``parts`` are what the step adds to the assistant message; the times show where a turn spent itself. ``held`` are the calls
    that wait for approval. ``waited_s`` is how long calls have waited for people; while one does, how long it may. ``usage`` has
    that of attempts which broke off, too. ``provider`` answered; ``cache`` where nobody was asked. ``warning`` is what clients
    should know of how the words came about: that another model answered than was asked for.
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
    held: tuple[HeldCall, ...] = ()
    waited_s: float = 0.0
    provider: str = ""
    warning: str = ""

    @property
    def unfinished_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls whose results it does not have."""
        known = {part.tool_call_id for part in self.parts if isinstance(part, ToolResultPart)}
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart) and part.tool_call_id not in known)

    @property
    def attempts_begun(self) -> int:
        """How many attempts at the step after it have begun when it is kept: once its tools are done, its writer goes on."""
        return 0 if self.unfinished_calls else 1


class Turn(Struct, frozen=True, kw_only=True):
    """A turn's record in the store.

    ``deadline`` is an instant in Unix seconds; for a turn that has waited it counts from when it was let through.
    ``waits``: behind another turn of its conversation, so nobody may run it yet. See NewTurn for what the client gave.
    ``shown_seq``: the highest seq that clients may have seen; beyond ``last_seq`` where text is shown before it is stored.
    ``request_charge``: request units that the store has charged for it so far; None where a store charges none.
    """

    key: TurnKey
    principal: Principal
    query: Query
    created_at: datetime
    deadline: float
    client_turn_id: str | None = None
    request_id: str = ""
    client_message_id: str | None = None
    replaces: str | None = None
    state: TurnState = "accepted"
    waits: bool = False
    epoch: int = 0
    last_seq: int = 0
    shown_seq: int = 0
    attempts: int = 0
    """How many attempts at the step after the last checkpoint have begun: each claim is one, and each that an owner tells of."""
    owner: Owner | None = None
    cancel_requested: bool = False
    steps: tuple[StepRecord, ...] = ()
    usage: Usage = Usage()
    finished_at: datetime | None = None
    timings_ms: dict[str, int] = {}
    request_charge: float | None = None
    priority: Priority = "live"

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def due(self) -> float:
        """The deadline, put off by what the turn has waited for people, or may wait. In Unix seconds."""
        return self.deadline + sum(step.waited_s for step in self.steps)


class NewTurn(Struct, frozen=True, kw_only=True):
    """Everything that is accepted in one transaction: idempotency row, user message, turn, and its first event.

    ``client_message_id``: what the client calls its message; not unique, the newest wins. ``replaces``: the id of a stored
    message of the conversation, which leaves the conversation as shown, and with it all that come after it. In place of a
    user message comes this turn's own (an edit). An assistant message is answered anew: the turn writes no user message,
    ``query`` repeats the question that message answered. ``opens``: the conversation is made with it where there is none.
    """

    key: TurnKey
    principal: Principal
    query: Query
    created_at: datetime
    deadline: float
    client_turn_id: str | None = None
    request_id: str = ""
    client_message_id: str | None = None
    replaces: str | None = None
    priority: Priority = "live"
    opens: bool = False


class AcceptedTurn(Struct, frozen=True, kw_only=True):
    """``created`` is False when the same input had been accepted before: its turn is given again.

    ``waits``: behind another turn; nobody may run it yet. ``interrupted``: the turns that were asked to stop for it,
    oldest first.
    """

    turn: Turn
    created: bool
    waits: bool = False
    interrupted: tuple[Turn, ...] = ()


class TurnClaim(Struct, frozen=True, kw_only=True):
    """What an owner gets with the lease: the turn, its conversation, and the newest messages before it, oldest first.

    ``shown_seq``: the highest seq that owners before it may have shown. What they had not stored is void, and its numbers
    must not be given to other events.
    """

    turn: Turn
    conversation: Conversation
    history: tuple[Message, ...]
    shown_seq: int = 0


class FinishTurn(Struct, frozen=True, kw_only=True):
    """The end of a turn, written in one transaction with its terminal event.

    ``earlier``: what of ``usage`` other models than ``model_id`` consumed, where several have answered.
    """

    state: TurnState
    message: Message
    usage: Usage
    model_id: str | None = None
    timings_ms: dict[str, int] = {}
    earlier: tuple[ModelUsage, ...] = ()


class AppendTurn(Struct, frozen=True, kw_only=True):
    """One turn's share of an append. Without records it renews the lease and hears control signals.

    ``attempt`` is one that begins, at the step after the last checkpoint, this append's included; 0 says nothing. The turn
    keeps the highest, so that attempts are counted across owners. ``ahead`` is how many events beyond its last one the owner
    may show before it appends again.
    """

    key: TurnKey
    epoch: int
    lease_s: float
    attempt: int = 0
    records: tuple[EventRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    session_prompt: SessionPrompt | None = None
    finish: FinishTurn | None = None
    ahead: int = 0


class AppendReply(Struct, frozen=True, kw_only=True):
    """``lost``: the epoch is no longer the turn's and nothing was written. ``cancel_requested`` is control coming back.

    ``next_turn``: waited behind the turn that this append has ended, and is let through; the owner starts it.
    """

    turn_id: str
    status: Literal["ok", "lost"]
    last_seq: int = 0
    cancel_requested: bool = False
    next_turn: TurnKey | None = None


class EventPage(Struct, frozen=True, kw_only=True):
    """A stretch of a turn's log after a cursor, and the turn as it was when read."""

    turn: Turn
    records: tuple[EventRecord, ...]
