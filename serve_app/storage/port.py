"""The store: everything Parley remembers.

Guarantees every adapter gives, held by ``tests/contract/test_store.py``:

- what a call returned as written survives the death of any process (``memory`` excepted, which is for tests);
- a turn is accepted in one transaction, and ends in one: either all of it is visible or nothing;
- ``seq`` of a turn's events is contiguous from 1; an append from an epoch that is not the turn's writes nothing;
  an exact repetition of records already written is taken as written;
- the turns of a conversation take their turn: one may run, those accepted meanwhile wait in order, each let through in the
  very transaction that ends the one before it;
- leases are judged by the store's own clock;
- keys are scoped by owner: a conversation or turn of somebody else raises the very NotFound a missing one does.

Neighbours: ``turns`` writes the log through it, ``ingress`` reads; ``deployments.handles`` carries it between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from serve_app.domain.conversation import Conversation, Message, Page, Reaction, SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.domain.turns import (
    AcceptedTurn,
    AppendReply,
    AppendTurn,
    EventPage,
    NewTurn,
    OnBusy,
    Owner,
    Turn,
    TurnClaim,
)
from serve_app.domain.usage import Grouping, UsageRow, UsageSums

MAX_PAGE = 200
"""Largest page of a listing, and most records ``read_events`` returns per call times ten."""
MAX_USAGE_DAYS = 92
"""Days over which usage is added up at most: a quarter."""


class ConversationStore(Protocol):
    """Conversations and messages of one owner at a time."""

    async def ensure_conversation(self, key: ConversationKey) -> Conversation:
        """The conversation, created empty if there is none."""

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        """Raises NotFound."""

    async def list_conversations(
        self, principal: Principal, *, archived: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Conversation]:
        """Newest activity first, heads without their ``session_prompt``. Activity is a message accepted or finished.

        Those whose key is not ``listed`` are in neither list; ``delete_all`` removes them with the others.

        Raises InvalidInput for a cursor this store did not make, and for a limit below one, as every listing does.
        """

    async def update_conversation(
        self,
        key: ConversationKey,
        *,
        title: str | None = None,
        archived: bool | None = None,
        session_prompt: SessionPrompt | None = None,
        if_untitled: bool = False,
        if_match: str | None = None,
        usage: UsageRow | None = None,
    ) -> Conversation:
        """Changes what is not None and returns the new head.

        ``usage``: what the change consumed, kept with it as ``add_usage`` would: it saves a call.
        ``if_untitled``: leave a title that is already there. ``if_match``: an etag; raises Conflict when it is not current.
        Raises NotFound.
        """

    async def delete_conversation(self, key: ConversationKey) -> None:
        """Removes the conversation, its messages, turns and events. A running turn finds its lease lost. Raises NotFound."""

    async def archive_all(self, principal: Principal) -> int:
        """Archives every conversation of the user; returns how many changed."""

    async def delete_all(self, principal: Principal) -> int:
        """Deletes every conversation of the user; returns how many there were."""

    async def list_messages(
        self,
        key: ConversationKey,
        *,
        cursor: str | None = None,
        limit: int = 50,
        descending: bool = False,
        replaced: bool = False,
    ) -> Page[Message]:
        """By position; those that have been replaced only where ``replaced`` asks for them, too.

        Raises NotFound for the conversation, InvalidInput for a cursor this store did not make.
        """

    async def get_message(self, key: ConversationKey, message_id: str) -> Message:
        """The message, replaced or not. Raises NotFound."""

    async def find_message(self, key: ConversationKey, client_id: str) -> Message:
        """The message that a client calls ``client_id``, replaced or not.

        The question of the newest turn with that ``client_message_id``, else the message with that id. Raises NotFound.
        """

    async def set_reaction(self, key: ConversationKey, message_id: str, reaction: Reaction | None) -> Message:
        """Raises NotFound."""


class TurnStore(Protocol):
    """The turn log."""

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        """Accepts an input in one transaction: idempotency row, user message, turn, event 1 (``turn.started``).

        The conversation must exist, unless ``turn.opens`` it. An input with the ``client_turn_id`` of an accepted one gives
        that turn again if its query is equal, else raises Conflict; nothing else of the two is compared. Raises NotFound for
        the conversation.

        While another turn of the conversation has not ended, ``reject`` raises Conflict. ``queue`` accepts the turn to wait;
        raises QuotaExceeded when ``max_waiting`` wait already. ``interrupt`` accepts it to wait, too, and requests the cancel
        of all that have not ended in the same transaction; only those whose cancel had been requested before count as
        waiting.

        ``turn.replaces`` raises Conflict in every mode while another turn has not ended; NotFound for a message that the
        conversation does not have; Conflict for one that has been replaced already.
        """

    async def claim_turn(
        self,
        key: TurnKey,
        owner: Owner,
        *,
        lease_s: float,
        history_limit: int,
        dead: Sequence[str] = (),
        ahead: int = 0,
    ) -> TurnClaim:
        """Takes the lease with the next epoch, counts an attempt, and returns what the owner needs, in one transaction.

        ``history_limit`` newest messages shown before the turn's question. ``dead``: the replica ids of owners known to
        be dead, whose leases hold no more. ``ahead``: how many events beyond ``shown_seq`` the owner may show before its
        first append. Raises LeaseLost while another owner's lease is good, while the turn waits for
        another (but for one whose cancel is requested: that it may be ended, it can be claimed at once) or when it has
        ended; NotFound.
        """

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        """Appends to many turns at once: one reply each, in order, all durable on return.

        One turn's failure to hold its lease touches no other. Records that do not continue the log (a gap, other bytes under
        a written seq, a terminal record without a finish or the reverse) are a bug of the owner: refused as ``lost``, logged.
        A finish also writes the assistant message, at the position reserved for it, and the usage, and lets the oldest
        waiting turn through once none before it is left: as if it had been accepted now, its deadline as far off as it was
        when it was made. The reply names it, as does the reply to a repetition of a finish until it has been claimed.
        A step's record replaces an earlier one of the same step (first its model call, then its tools' results) and gives
        the turn its attempts back; an append that arrives twice takes nothing back.
        """

    async def get_turn(self, key: TurnKey) -> Turn:
        """Raises NotFound."""

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        """Records with ``seq > after_seq`` in order. Raises NotFound; Gone where retention has removed the log.

        A page may hold fewer than ``limit`` where bodies are large; the log's end is ``turn.last_seq``, not a short page.
        """

    async def request_cancel(self, key: TurnKey) -> Turn:
        """Asks the owner to stop; the next append's reply tells it. No effect on a turn that has ended. Raises NotFound."""

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        """Turns that have not ended and whose lease has expired, longest abandoned first.

        One never claimed counts ten seconds after it was accepted or let through. One that waits counts only when its cancel
        is requested, and then at once.
        """


class RecordStore(Protocol):
    """Configuration records, found by tenant, kind and id."""

    async def get_record(self, tenant_id: str, kind: str, record_id: str) -> Record:
        """Raises NotFound."""

    async def save_record(
        self, tenant_id: str, kind: str, record_id: str, body: bytes, *, if_match: str | None = None
    ) -> Record:
        """Writes the record in place of what there is. ``body`` is JSON.

        ``if_match``: an etag, or an empty string where there must be none yet; raises Conflict where that does not hold.
        """

    async def delete_record(self, tenant_id: str, kind: str, record_id: str) -> None:
        """Raises NotFound."""

    async def list_records(
        self, tenant_id: str, kind: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Record]:
        """By id. Raises InvalidInput for a cursor this store did not make."""


class UsageStore(Protocol):
    """What has been consumed. Written as turns end, and kept when their conversations are deleted."""

    async def list_usage(
        self, tenant_id: str, day: date, *, cursor: str | None = None, limit: int = 50
    ) -> Page[UsageRow]:
        """The tenant's rows of that day (UTC), each once, in an order of the store's own.

        All of them once the day is over and what the store gathers has been written; before, some may be missing.
        Raises InvalidInput for a cursor this store did not make for that day.
        """

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """Keeps what was consumed beside turns.

        Those that are there already, of the same turn, purpose, model and instant, stay as they are.
        """

    async def sum_usage(
        self,
        tenant_id: str,
        first: date,
        last: date,
        by: Grouping,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> UsageSums:
        """What the tenant, or one user of it, consumed from one day to another (UTC, both included), by group, in its order.

        As complete as ``list_usage``. Raises InvalidInput for more than ``MAX_USAGE_DAYS``, for conversations without a user,
        and for a cursor that no listing of such groups made.
        """


class Store(ConversationStore, TurnStore, RecordStore, UsageStore, Protocol):
    """All of them, plus its own health and upkeep."""

    async def check(self) -> None:
        """Returns when the store can read and write. Raises ParleyError with a sentence that says what is wrong."""

    async def prune_events(self, *, older_than_s: float, limit: int = 1000) -> int:
        """Removes logs of turns that ended longer ago; their turns and messages stay. Returns how many turns it pruned.

        A conversation that is not ``listed`` goes altogether with the last of its logs.

        A store whose records expire by themselves has no logs to remove, and returns 0: there a log is gone as soon as the
        retention it was opened with has passed since its turn's end, and such a conversation within a day more; this removes
        what it left where nothing expires.
        """

    async def close(self) -> None:
        """Finishes what is being written and lets go of files and connections."""
