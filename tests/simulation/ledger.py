"""What took effect in the store, and who did it: checked the moment it happens.

The ledger stands between the network and the real store, so it sees each write once for each time that it took effect,
with the process it came from, whatever that process was told of it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AcceptedTurn, AppendReply, AppendTurn, NewTurn, Owner, Turn, TurnClaim
from serve_app.errors import NotFound
from serve_app.storage.memory import MemoryStore
from tests.simulation.clock import VirtualTime
from tests.simulation.schedule import Durability

T = TypeVar("T")

SHOWN_WHEN_STORED = tuple(
    f'{{"type":"{event}"'.encode()
    for event in ("tool.started", "tool.finished", "chat_response", "turn.failed", "turn.cancelled")
)


class Violation(AssertionError):
    """An invariant that does not hold. ``invariant`` names it in a few words."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class Verdict:
    """The first violation; those that follow are mostly its consequences."""

    def __init__(self) -> None:
        self.violation: Violation | None = None

    def fail(self, invariant: str, detail: str) -> None:
        if self.violation is None:
            self.violation = Violation(invariant, detail)

    def expect(self, holds: bool, invariant: str, detail: str) -> None:
        if not holds:
            self.fail(invariant, detail)


@dataclass
class TurnAccount:
    """One turn as the ledger saw it."""

    accepted: NewTurn
    claims: dict[int, str] = field(default_factory=dict)
    """Epoch → the process that claimed it."""
    lease_until_s: float = 0.0
    model_calls: dict[int, int] = field(default_factory=dict)
    """Step → calls of the model for it."""
    ended_at_s: float | None = None

    @property
    def key(self) -> TurnKey:
        return self.accepted.key


def at_once(coro: Coroutine[Any, Any, T]) -> T:
    """The result of a call of the memory store, which never waits for anything."""
    try:
        coro.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coro.close()
    raise AssertionError("The memory store waited for something.")


class Ledger:
    """The real store, and a book of what happened to it."""

    def __init__(self, verdict: Verdict, durability: Durability = "sync") -> None:
        self._durability = durability
        self.store = MemoryStore(clock=VirtualTime.time)
        self.verdict = verdict
        self.turns: dict[str, TurnAccount] = {}

    def turn(self, key: TurnKey) -> Turn:
        return at_once(self.store.get_turn(key))

    def records(self, key: TurnKey) -> tuple[EventRecord, ...]:
        records: tuple[EventRecord, ...] = ()
        while page := at_once(self.store.read_events(key, after_seq=len(records), limit=2_000)).records:
            records += page
        return records

    def conversation_turns(self, key: ConversationKey) -> list[TurnAccount]:
        """In the order in which they were accepted."""
        return [account for account in self.turns.values() if account.key.conversation == key]

    def may_be_shown(self, turn_id: str, record: EventRecord) -> bool:
        """Whether this very record is in the log, or is text that the store has been told may be shown before it is."""
        return self._holds(turn_id, record) or (
            self._durability != "sync"
            and not record.body.startswith(SHOWN_WHEN_STORED)
            and record.seq <= self.turn(self.turns[turn_id].key).shown_seq
        )

    def _holds(self, turn_id: str, record: EventRecord) -> bool:
        account = self.turns.get(turn_id)
        if account is None:
            return False
        page = at_once(self.store.read_events(account.key, after_seq=record.seq - 1, limit=1))
        return page.records[:1] == (record,)

    @property
    def all_ended(self) -> bool:
        return all(account.ended_at_s is not None for account in self.turns.values())

    # What takes effect. Each of these raises what the store raises.

    def accept_turn(self, process: str, turn: NewTurn, **how: Any) -> AcceptedTurn:
        accepted = at_once(self.store.accept_turn(turn, **how))
        if accepted.created:
            self.verdict.expect(turn.key.turn_id not in self.turns, "accepted once", turn.key.turn_id)
            self.turns[turn.key.turn_id] = TurnAccount(turn)
        return accepted

    def claim_turn(self, process: str, key: TurnKey, owner: Owner, **how: Any) -> TurnClaim:
        before = self.turn(key)
        claim = at_once(self.store.claim_turn(key, owner, **how))
        account = self.turns[key.turn_id]
        epoch, now_s = claim.turn.epoch, VirtualTime.monotonic()
        expect, turn_id = self.verdict.expect, key.turn_id
        expect(epoch == before.epoch + 1, "epochs rise by one", f"{turn_id}: {before.epoch} → {epoch}")
        expect(not before.ended, "an ended turn is not claimed", turn_id)
        held_by = before.owner.replica_id if before.owner is not None and account.lease_until_s > now_s else None
        free = held_by in (None, owner.replica_id, *how["dead"])
        expect(free, "a good lease is not taken", f"{turn_id}: {owner.replica_id} from {held_by}")
        # One whose cancel is requested is claimed to be ended, whether it waits or not.
        if not before.cancel_requested:
            expect(not before.waits, "who waits does not run", turn_id)
            turns = self.conversation_turns(key.conversation)
            earlier = turns[: turns.index(account)]
            running = [other.key.turn_id for other in earlier if other.ended_at_s is None]
            expect(not running, "one turn of a conversation runs at a time", f"{turn_id} beside {running}")
        account.claims[epoch] = process
        account.lease_until_s = now_s + how["lease_s"]
        return claim

    def append(self, process: str, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        before = [self._turn_or_none(share.key) for share in batch]
        replies = at_once(self.store.append(batch))
        for was, share, reply in zip(before, batch, replies, strict=True):
            if reply.status == "ok":
                self.turns[share.key.turn_id].lease_until_s = VirtualTime.monotonic() + share.lease_s
            if was is not None and (became := self._turn_or_none(share.key)) is not None:
                self._check_append(process, was, became, share)
        return replies

    def _check_append(self, process: str, was: Turn, became: Turn, share: AppendTurn) -> None:
        if was == became:
            return
        expect, turn_id = self.verdict.expect, share.key.turn_id
        account = self.turns[turn_id]
        expect(share.epoch == was.epoch, "an old epoch writes nothing", f"{turn_id}: {share.epoch} under {was.epoch}")
        writer = account.claims.get(share.epoch)
        expect(
            writer == process, "only the owner writes", f"{turn_id}: {process} wrote in {writer}'s epoch {share.epoch}"
        )
        expect(not was.ended, "nothing is written after the end", f"{turn_id}: {share.records}")
        expect(became.epoch == was.epoch, "an append leaves the epoch alone", turn_id)
        for old, new in zip(was.steps, became.steps, strict=False):
            older = old.step == new.step and set(map(repr, old.parts)) <= set(map(repr, new.parts))
            expect(older, "a checkpoint is never taken back", f"{turn_id}: {old} became {new}")
        if became.ended:
            account.ended_at_s = VirtualTime.monotonic()

    def _turn_or_none(self, key: TurnKey) -> Turn | None:
        try:
            return self.turn(key)
        except NotFound:
            return None
