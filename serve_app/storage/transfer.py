"""Copying between stores: all that a store has, in pieces that another store can take over.

    scan_conversations ─► export_conversation ─► import_conversation     likewise usage and records
         one store                                    the other

No request uses this. What is copied shows the same afterwards: messages with their positions, turns with their logs, owners and
leases, and the order of listings; etags are each store's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.conversation import Conversation, Message, Page
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey
from serve_app.domain.records import Record
from serve_app.domain.turns import Turn
from serve_app.domain.usage import UsageRow


class TurnSnapshot(Struct, frozen=True, kw_only=True):
    """A turn with what its store keeps beside it.

    ``question`` and ``answer`` are positions of messages; ``lease_until`` is in Unix seconds; ``was_let_through``: it has
    waited, and its deadline counts from when it was let through; ``records`` is None where retention has removed the log.
    """

    turn: Turn
    question: int
    answer: int
    lease_until: float
    was_let_through: bool = False
    records: tuple[EventRecord, ...] | None = None


class ConversationSnapshot(Struct, frozen=True, kw_only=True):
    """All of a conversation at one moment.

    ``conversation`` has its ``session_prompt``. ``order`` breaks ties of activity in listings; ``last_position`` is the highest
    that has been given to anything. ``messages`` are all, by position; ``turns`` are in the order they were accepted.
    """

    conversation: Conversation
    order: int
    last_position: int
    messages: tuple[Message, ...]
    turns: tuple[TurnSnapshot, ...]


class StoreCounts(Struct, frozen=True, kw_only=True):
    """How much there is of everything; what is being removed does not count."""

    conversations: int = 0
    messages: int = 0
    turns: int = 0
    usage: int = 0
    records: int = 0


class Transfer(Protocol):
    """A store that can be copied from and to. A cursor stays good while nothing is written.

    Listings raise InvalidInput for a cursor that this store did not make.
    """

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        """Those of all owners."""

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        """Raises NotFound."""

    async def import_conversation(self, snapshot: ConversationSnapshot) -> None:
        """Writes it in place of what is there under its key; repeating it changes nothing."""

    async def scan_usage(self, *, cursor: str | None = None, limit: int = 1000) -> Page[UsageRow]: ...

    async def import_usage(self, rows: Sequence[UsageRow]) -> None:
        """Those that are not there yet; see ``UsageStore.add_usage``."""

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]: ...

    async def import_records(self, records: Sequence[Record]) -> None:
        """In place of what is there; a record that is there already as it is, is left so."""

    async def count_all(self) -> StoreCounts: ...


def same(ours: ConversationSnapshot, theirs: ConversationSnapshot) -> bool:
    """Whether two snapshots show the same: all but what each store makes of its own (etags, charges, order of making, and
    leases, which hold a little longer wherever a store is opened)."""
    return _plain(ours) == _plain(theirs)


def _plain(snapshot: ConversationSnapshot) -> ConversationSnapshot:
    turns = tuple(
        replace(held, turn=replace(held.turn, request_charge=None), lease_until=0.0) for held in snapshot.turns
    )
    return replace(snapshot, conversation=replace(snapshot.conversation, etag=""), order=0, turns=turns)
