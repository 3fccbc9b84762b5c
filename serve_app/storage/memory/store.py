"""The store port on dictionaries. One event loop, no awaits inside, hence no locks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date

from msgspec.structs import replace

from serve_app.domain.conversation import Conversation, Message, Page, Reaction, SessionPrompt
from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.domain.turns import (
    AcceptedTurn,
    AppendReply,
    AppendTurn,
    EventPage,
    FinishTurn,
    NewTurn,
    OnBusy,
    Owner,
    Turn,
    TurnClaim,
)
from serve_app.domain.usage import Grouping, Purpose, UsageRow, UsageSums
from serve_app.errors import NotFound
from serve_app.storage.memory.conversation import HeldTurn, KeptConversation, with_step
from serve_app.storage.pages import (
    MAX_EVENTS,
    PAGE_BYTES,
    ConversationCursor,
    MessageCursor,
    RecordCursor,
    UsageCursor,
    bounded_limit,
    conversation_cursor,
    encode_cursor,
    message_cursor,
    record_cursor,
    sums_cursor,
    usage_cursor,
)
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.rules import (
    MisfitError,
    datetime_of,
    fresh_records,
    lease_held,
    log_gone,
    no_conversation,
    no_record,
    no_turn,
    stale_etag,
    stale_record,
    to_us,
    turn_ended,
    turn_waits,
)
from serve_app.storage.usage_rows import Sums, check_grouping, days, group_of, rows_of
from serve_app.telemetry import logger

UsageKey = tuple[str, Purpose, str, int]
"""Of a row: turn, purpose, model and instant."""


class MemoryStore:
    """The store port on dictionaries. ``clock`` gives Unix seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._conversations: dict[ConversationKey, KeptConversation] = {}
        self._orders = itertools.count(1)
        self._versions = itertools.count(1)
        self._records: dict[tuple[str, str, str], Record] = {}
        self._usage: dict[UsageKey, UsageRow] = {}

    # Conversations

    async def ensure_conversation(self, key: ConversationKey) -> Conversation:
        kept = self._conversations.get(key)
        if kept is None:
            at = datetime_of(to_us(self._clock()))
            head = Conversation(key=key, created_at=at, updated_at=at)
            kept = KeptConversation(head, next(self._orders), lambda: f"{next(self._versions):x}")
            self._conversations[key] = kept
        return kept.head

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        return self._conversation(key).head

    async def list_conversations(
        self, principal: Principal, *, archived: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Conversation]:
        after = conversation_cursor(cursor, archived=archived)
        limit = bounded_limit(limit)

        def place(kept: KeptConversation) -> tuple[int, int]:
            return to_us(kept.head.updated_at.timestamp()), kept.order

        found = [kept for kept in self._of(principal) if kept.head.key.listed and kept.head.archived == archived]
        if after is not None:
            found = [kept for kept in found if place(kept) < (after.updated_us, after.order)]
        found.sort(key=place, reverse=True)
        more = None
        if len(found) > limit:
            updated_us, order = place(found[limit - 1])
            more = encode_cursor(ConversationCursor(archived=archived, updated_us=updated_us, order=order))
        return Page(items=tuple(replace(kept.head, session_prompt=None) for kept in found[:limit]), next_cursor=more)

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
        kept = self._conversation(key)
        head = kept.head
        if if_match is not None and if_match != head.etag:
            raise stale_etag()
        if title is None or (if_untitled and head.title is not None):
            title = head.title
        changed = replace(
            head,
            title=title,
            archived=head.archived if archived is None else archived,
            session_prompt=session_prompt or head.session_prompt,
        )
        if changed != head:
            kept.change(changed)
        if usage is not None:
            await self.add_usage([usage])
        return kept.head

    async def delete_conversation(self, key: ConversationKey) -> None:
        self._conversation(key)
        del self._conversations[key]

    async def archive_all(self, principal: Principal) -> int:
        found = [kept for kept in self._of(principal) if kept.head.key.listed and not kept.head.archived]
        for kept in found:
            kept.change(replace(kept.head, archived=True))
        return len(found)

    async def delete_all(self, principal: Principal) -> int:
        found = [kept.head.key for kept in self._of(principal)]
        for key in found:
            del self._conversations[key]
        return len(found)

    async def list_messages(
        self,
        key: ConversationKey,
        *,
        cursor: str | None = None,
        limit: int = 50,
        descending: bool = False,
        replaced: bool = False,
    ) -> Page[Message]:
        after = message_cursor(cursor, descending=descending)
        limit = bounded_limit(limit)
        messages = self._conversation(key).messages(replaced=replaced)
        if descending:
            messages.reverse()
        if after is not None:
            messages = [
                m for m in messages if (m.position < after.position) == descending and m.position != after.position
            ]
        more = None
        if len(messages) > limit:
            more = encode_cursor(MessageCursor(descending=descending, position=messages[limit - 1].position))
        return Page(items=tuple(messages[:limit]), next_cursor=more)

    async def get_message(self, key: ConversationKey, message_id: str) -> Message:
        return self._conversation(key).message(message_id)

    async def find_message(self, key: ConversationKey, client_id: str) -> Message:
        return self._conversation(key).message_called(client_id)

    async def set_reaction(self, key: ConversationKey, message_id: str, reaction: Reaction | None) -> Message:
        kept = self._conversation(key)
        message = replace(kept.message(message_id), reaction=reaction)
        kept.put_message(message)
        return message

    # The turn log

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        if turn.opens:
            await self.ensure_conversation(turn.key.conversation)
        kept = self._conversation(turn.key.conversation)
        return kept.accept(turn, self._clock(), on_busy=on_busy, max_waiting=max_waiting)

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
        held = self._turn(key)
        now = self._clock()
        turn = held.turn
        if turn.ended:
            raise turn_ended(key)
        if not held.may_be_claimed:
            raise turn_waits(key)
        held_by = None if turn.owner is None or held.lease_until <= now else turn.owner.replica_id
        if held_by not in (None, owner.replica_id, *dead):
            raise lease_held(key)
        held.turn = replace(
            turn,
            state="running",
            epoch=turn.epoch + 1,
            attempts=turn.attempts + 1,
            owner=owner,
            waits=False,
            shown_seq=turn.shown_seq + ahead,
        )
        held.lease_until = now + lease_s
        kept = self._conversation(key.conversation)
        before = [message for message in kept.messages() if message.position < held.question]
        history = before[max(0, len(before) - min(history_limit, MAX_PAGE)) :]
        return TurnClaim(turn=held.turn, conversation=kept.head, history=tuple(history), shown_seq=turn.shown_seq)

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        replies = []
        for share in batch:
            try:
                replies.append(self._append(share))
            except MisfitError as error:
                _log.error("append refused", turn_id=share.key.turn_id, epoch=share.epoch, reason=str(error))
                replies.append(AppendReply(turn_id=share.key.turn_id, status="lost"))
        return replies

    def _append(self, share: AppendTurn) -> AppendReply:
        lost = AppendReply(turn_id=share.key.turn_id, status="lost")
        try:
            held = self._turn(share.key)
        except NotFound:
            return lost
        turn = held.turn
        if turn.epoch != share.epoch:
            return lost
        fresh = fresh_records(share, turn.last_seq)
        repeated = share.records[: len(share.records) - len(fresh)]
        if repeated:
            first = repeated[0].seq - 1
            if held.records is None or held.records[first : first + len(repeated)] != list(repeated):
                raise MisfitError("records differ from those the log has")
        follower = None
        if not turn.ended:
            follower = self._write(held, share, fresh)
        elif fresh or not share.records:
            return lost
        elif share.finish is not None:
            follower = self._conversation(share.key.conversation).let_through()
        return AppendReply(
            turn_id=share.key.turn_id,
            status="ok",
            last_seq=held.turn.last_seq,
            cancel_requested=held.turn.cancel_requested,
            next_turn=None if follower is None else follower.key,
        )

    def _write(self, held: HeldTurn, share: AppendTurn, fresh: Sequence[EventRecord]) -> Turn | None:
        """Returns the turn that is let through, if any."""
        turn = held.turn
        now = self._clock()
        for step in share.steps:
            turn = with_step(turn, step, repeated=not fresh)
        kept = self._conversation(share.key.conversation)
        if share.finish is not None:
            message_id = share.finish.message.message_id
            if kept.has_message(message_id):
                raise MisfitError(f"message {message_id} is already there")
        # Nothing has been written so far, and nothing is refused from here on.
        if held.records is not None:
            held.records.extend(fresh)
        last_seq = turn.last_seq + len(fresh)
        held.turn = replace(
            turn,
            last_seq=last_seq,
            shown_seq=max(turn.shown_seq, last_seq + share.ahead),
            attempts=max(turn.attempts, share.attempt),
        )
        held.lease_until = now + share.lease_s
        if share.session_prompt is not None and share.session_prompt != kept.head.session_prompt:
            kept.change(replace(kept.head, session_prompt=share.session_prompt))
        return None if share.finish is None else self._finish(kept, held, share.finish, now)

    def _finish(self, kept: KeptConversation, held: HeldTurn, finish: FinishTurn, now: float) -> Turn | None:
        held.turn = replace(
            held.turn,
            state=finish.state,
            shown_seq=held.turn.last_seq,
            usage=finish.usage,
            timings_ms=dict(finish.timings_ms),
            finished_at=datetime_of(to_us(now)),
        )
        held.finished_at_s = now
        follower = kept.finish(held, finish.message, now)
        for row in rows_of(held.turn.key, finish, held.turn.finished_at or held.turn.created_at):
            self._usage[_usage_key(row)] = row
        return follower

    async def get_turn(self, key: TurnKey) -> Turn:
        return self._turn(key).turn

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        limit = bounded_limit(limit, MAX_EVENTS)
        held = self._turn(key)
        if held.records is None:
            raise log_gone()
        records: list[EventRecord] = []
        size = 0
        for record in held.records[max(0, after_seq) :][:limit]:
            size += len(record.body)
            if records and size > PAGE_BYTES:
                break
            records.append(record)
        return EventPage(turn=held.turn, records=tuple(records))

    async def request_cancel(self, key: TurnKey) -> Turn:
        held = self._turn(key)
        held.request_cancel()
        return held.turn

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        now = self._clock()
        found = [
            held for held in self._turns() if not held.turn.ended and held.lease_until <= now and held.may_be_claimed
        ]
        found.sort(key=lambda held: held.lease_until)
        return [held.turn.key for held in found[: min(limit, MAX_EVENTS)]]

    # Records

    async def get_record(self, tenant_id: str, kind: str, record_id: str) -> Record:
        found = self._records.get((tenant_id, kind, record_id))
        if found is None:
            raise no_record()
        return found

    async def save_record(
        self, tenant_id: str, kind: str, record_id: str, body: bytes, *, if_match: str | None = None
    ) -> Record:
        kept = self._records.get((tenant_id, kind, record_id))
        if if_match is not None and if_match != ("" if kept is None else kept.etag):
            raise stale_record()
        etag = f"{next(self._versions):x}"
        record = Record(tenant_id=tenant_id, kind=kind, record_id=record_id, body=body, etag=etag)
        self._records[tenant_id, kind, record_id] = record
        return record

    async def delete_record(self, tenant_id: str, kind: str, record_id: str) -> None:
        if self._records.pop((tenant_id, kind, record_id), None) is None:
            raise no_record()

    async def list_records(
        self, tenant_id: str, kind: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Record]:
        after = record_cursor(cursor)
        limit = bounded_limit(limit)
        found = [
            record
            for key, record in sorted(self._records.items())
            if key[:2] == (tenant_id, kind) and (after is None or key[2] > after.record_id)
        ]
        more = encode_cursor(RecordCursor(record_id=found[limit - 1].record_id)) if len(found) > limit else None
        return Page(items=tuple(found[:limit]), next_cursor=more)

    # Usage

    async def list_usage(
        self, tenant_id: str, day: date, *, cursor: str | None = None, limit: int = 50
    ) -> Page[UsageRow]:
        after = usage_cursor(cursor, day=day.isoformat())
        limit = bounded_limit(limit)
        found = [
            row
            for key, row in sorted(self._usage.items())
            if row.tenant_id == tenant_id and row.at.date() == day and (after is None or _row_id(key) > after.row_id)
        ]
        more = None
        if len(found) > limit:
            more = encode_cursor(
                UsageCursor(day=day.isoformat(), at_us=0, row_id=_row_id(_usage_key(found[limit - 1])))
            )
        return Page(items=tuple(found[:limit]), next_cursor=more)

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        for row in rows:
            self._usage.setdefault(_usage_key(row), row)

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
        after = sums_cursor(cursor, by=by)
        limit = bounded_limit(limit)
        check_grouping(by, user_id)
        days(first, last)
        sums = Sums()
        for row in self._usage.values():
            if row.tenant_id == tenant_id and user_id in (None, row.user_id) and first <= row.at.date() <= last:
                sums.add(group_of(row, by), int(row.purpose == "turn"), row.usage)
        return sums.page(by, after=after, limit=limit)

    # Health and upkeep

    async def check(self) -> None:
        """Memory is always there."""

    async def prune_events(self, *, older_than_s: float, limit: int = 1000) -> int:
        before = self._clock() - older_than_s
        found = [held for held in self._turns() if held.turn.ended and held.records is not None]
        due = sorted((held for held in found if held.finished_at_s <= before), key=lambda held: held.finished_at_s)
        for held in due[:limit]:
            held.records = None
            key = held.turn.key.conversation
            if key.passing and all(other.records is None for other in self._conversation(key).turns.values()):
                del self._conversations[key]
        return len(due[:limit])

    async def close(self) -> None:
        """Keeps what it has: a test may still look at it."""

    def _conversation(self, key: ConversationKey) -> KeptConversation:
        kept = self._conversations.get(key)
        if kept is None:
            raise no_conversation()
        return kept

    def _turn(self, key: TurnKey) -> HeldTurn:
        kept = self._conversations.get(key.conversation)
        held = None if kept is None else kept.turns.get(key.turn_id)
        if held is None:
            raise no_turn()
        return held

    def _turns(self) -> Iterator[HeldTurn]:
        for kept in self._conversations.values():
            yield from kept.turns.values()

    def _of(self, principal: Principal) -> list[KeptConversation]:
        owner = (principal.tenant_id, principal.user_id)
        return [kept for key, kept in self._conversations.items() if (key.tenant_id, key.user_id) == owner]


def _usage_key(row: UsageRow) -> UsageKey:
    return row.turn_id, row.purpose, row.model_id or "", to_us(row.at.timestamp())


def _row_id(key: UsageKey) -> str:
    return "\n".join(map(str, key))


_log = logger("storage")
