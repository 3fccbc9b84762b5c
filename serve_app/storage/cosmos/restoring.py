"""Writing a whole conversation as another store had it, document by document under a tombstone, its head last."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from serve_app.domain.conversation import Message
from serve_app.domain.events import EventRecord
from serve_app.domain.turns import NewTurn, Turn
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.documents import Head, IdempotencyKey, MessageDocument, Outcome, TurnDocument
from serve_app.storage.cosmos.layout import Partition
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions
from serve_app.storage.cosmos.shares import log_entry, prompt_document, step_of
from serve_app.storage.rules import to_us
from serve_app.storage.transfer import ConversationSnapshot, TurnSnapshot

_BATCH_DOCUMENTS = 80
_BATCH_BYTES = 900_000
_ENTRY_BYTES = 128 * 1024


async def restore(
    sessions: Sessions, removals: Removals, snapshot: ConversationSnapshot, *, retention_s: float
) -> None:
    """Where there is no conversation, or a tombstone."""
    partition = layout.conversation_partition(snapshot.conversation.key)
    there = await sessions.get(partition, layout.HEAD)
    if isinstance(there, Head) and not there.cleared:
        await removals.clear(there)
        there = await sessions.get(partition, layout.HEAD)
    head = _head(partition, snapshot, version=to_us(sessions.clock()))
    tombstone = msgspec.structs.replace(
        head, deleted=True, title=None, etag=there.etag if isinstance(there, Head) else ""
    )
    batch = Batch(partition, home=head.order)
    if tombstone.etag:
        batch.replace(tombstone)
    else:
        batch.create(tombstone)
    await sessions.write(batch)

    writer = _Writer(sessions, partition, head.order)
    prompt = snapshot.conversation.session_prompt
    if prompt is not None:
        json = documents.json_of(prompt)
        fingerprint = documents.fingerprint(json)
        head = msgspec.structs.replace(head, prompt=fingerprint)
        writer.batch.upsert(prompt_document(writer.batch, json, fingerprint))
    keys = {held.turn.key.turn_id: held.turn.client_turn_id for held in snapshot.turns}
    for message in snapshot.messages:
        client_turn_id = keys.get(message.turn_id) if message.role == "user" else None
        writer.batch.upsert(_message(writer.batch, message, client_turn_id))
        await writer.write_if_full()
    asking = {message.turn_id for message in snapshot.messages if message.role == "user"}
    for held in snapshot.turns:
        for document in _turn(writer.batch, held, head.order, asks=held.turn.key.turn_id in asking):
            writer.batch.upsert(document)
        await writer.write_if_full()
        age_s = 0.0
        if held.turn.finished_at is not None:
            age_s = max(0.0, sessions.clock() - held.turn.finished_at.timestamp())
        for records in _pieces((held.records or ())[1:]):
            written = [documents.kept_record(record) for record in records]
            entry = log_entry(writer.batch, held.turn.key.turn_id, written, max(0.0, retention_s - age_s))
            writer.batch.upsert(entry)
            await writer.write_if_full()
    await writer.write()

    kept = await sessions.get(partition, layout.HEAD)
    last = Batch(partition, home=head.order)
    last.replace(msgspec.structs.replace(head, etag="" if kept is None else kept.etag))
    await sessions.write(last)


class _Writer:
    """Batches of as many documents as fit one."""

    def __init__(self, sessions: Sessions, partition: Partition, home: int) -> None:
        self._sessions = sessions
        self._partition = partition
        self._home = home
        self.batch = Batch(partition, home=home)
        self._size = 0
        self._counted = 0

    async def write_if_full(self) -> None:
        operations = self.batch.operations
        self._size += sum(len(msgspec.json.encode(operation.body)) for operation in operations[self._counted :])
        self._counted = len(operations)
        if self._counted >= _BATCH_DOCUMENTS or self._size > _BATCH_BYTES:
            await self.write()

    async def write(self) -> None:
        if self.batch.operations:
            await self._sessions.write(self.batch)
        self.batch = Batch(self._partition, home=self._home)
        self._size = self._counted = 0


def _head(partition: Partition, snapshot: ConversationSnapshot, *, version: int) -> Head:
    conversation = snapshot.conversation
    return Head(
        id=layout.HEAD,
        tenant_id=partition[0],
        conversation_id=partition[1],
        created_us=to_us(conversation.created_at.timestamp()),
        updated_us=to_us(conversation.updated_at.timestamp()),
        order=snapshot.order,
        version=max(version, snapshot.order + 1),
        title=conversation.title,
        archived=conversation.archived,
        message_count=conversation.message_count,
        last_position=snapshot.last_position,
        open=tuple(layout.turn_id(held.turn.key) for held in snapshot.turns if not held.turn.ended),
    )


def _message(batch: Batch, message: Message, client_turn_id: str | None) -> MessageDocument:
    plain = msgspec.structs.replace(message, reaction=None, replaced_by=None)
    document_id = layout.message_id(message.message_id)
    if client_turn_id is not None:
        document_id = layout.idempotency_id(client_turn_id)
    return MessageDocument(
        id=document_id,
        tenant_id=batch.partition[0],
        conversation_id=batch.partition[1],
        message_id=message.message_id,
        turn_id=message.turn_id,
        role=message.role,
        position=message.position,
        shown_at=message.position if message.replaced_by is None else 0,
        replaced_by=message.replaced_by,
        reaction=message.reaction,
        body=batch.body(documents.json_of(plain), f"message-{message.position}"),
    )


def _turn(batch: Batch, held: TurnSnapshot, home: int, *, asks: bool) -> list[TurnDocument | IdempotencyKey]:
    """The turn's document, and that of its key where it has no question of its own."""
    turn = held.turn
    new = _input(turn)
    ulid = layout.ulid_of(turn.key.turn_id)
    tenant_id, conversation_id = batch.partition
    outcome = Outcome(usage=turn.usage, timings_ms=turn.timings_ms)
    kept = TurnDocument(
        id=layout.turn_id(turn.key),
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        turn_id=turn.key.turn_id,
        home=home,
        input=batch.body(documents.json_of(new), f"{ulid}-input", rewritten=True),
        given_s=new.deadline - new.created_at.timestamp(),
        question=held.question,
        answer=held.answer,
        accept_id="",
        client_turn_id=turn.client_turn_id,
        called_key=None if turn.client_message_id is None else layout.called_key(turn.client_message_id, held.answer),
        state=turn.state,
        waits=turn.waits,
        epoch=turn.epoch,
        last_seq=turn.last_seq,
        shown_seq=turn.shown_seq,
        attempts=turn.attempts,
        owner_id=None if turn.owner is None else turn.owner.replica_id,
        owner_endpoint="" if turn.owner is None else turn.owner.endpoint,
        lease_until=held.lease_until,
        cancel_requested=turn.cancel_requested,
        was_let_through=held.was_let_through,
        deadline=turn.deadline if held.was_let_through else None,
        steps=tuple(step_of(batch, ulid, step) for step in turn.steps),
        finished_us=None if turn.finished_at is None else to_us(turn.finished_at.timestamp()),
        outcome=documents.json_of(outcome) if turn.ended else None,
        request_charge=turn.request_charge or 0.0,
        pruned=held.records is None,
    )
    if turn.client_turn_id is None or asks:
        return [kept]
    key = IdempotencyKey(
        id=layout.idempotency_id(turn.client_turn_id),
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        turn_id=turn.key.turn_id,
    )
    return [kept, key]


def _input(turn: Turn) -> NewTurn:
    """What was accepted. Of a turn that was let through the first deadline is no longer known, nor needed."""
    return NewTurn(
        key=turn.key,
        principal=turn.principal,
        query=turn.query,
        created_at=turn.created_at,
        deadline=turn.deadline,
        client_turn_id=turn.client_turn_id,
        request_id=turn.request_id,
        client_message_id=turn.client_message_id,
        replaces=turn.replaces,
        priority=turn.priority,
    )


def _pieces(records: tuple[EventRecord, ...]) -> Iterator[tuple[EventRecord, ...]]:
    """The records of one log entry each."""
    first, size = 0, 0
    for index, record in enumerate(records):
        size += len(record.body)
        if size > _ENTRY_BYTES:
            yield records[first : index + 1]
            first, size = index + 1, 0
    if records[first:]:
        yield records[first:]
