"""Accepting an input: one batch of its question, its turn and the conversation's head, over the head as it was read.

``plan`` and its parts only look at documents; :class:`Acceptance` reads them, writes the batch and finds out what a refusal
means. Positions are given out here and only here: two for a turn that asks, one for a turn that answers an old question anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from serve_app.domain.turns import AcceptedTurn, NewTurn, OnBusy
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.charges import metered
from serve_app.storage.cosmos.documents import (
    AnyDocument,
    Head,
    IdempotencyKey,
    MessageDocument,
    Replacing,
    TurnDocument,
)
from serve_app.storage.cosmos.messages import MAX_PATCHES, Messages
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.sessions import Sessions, rounds
from serve_app.storage.cosmos.turns import Turns
from serve_app.storage.rules import (
    UNCLAIMED_S,
    busy_conversation,
    no_message,
    other_query,
    replaced_since,
    to_us,
    too_many_waiting,
    user_message,
)


class Replacement(Struct, frozen=True):
    """What a turn takes the place of: the messages shown from a position on. ``question`` is the position of the one that is
    answered anew; None where the turn brings its own."""

    first: int
    shown: tuple[str, ...]
    question: int | None


class Plan(Struct, frozen=True):
    """``patched``: messages that say in the same batch that they are replaced."""

    head: Head
    turn: TurnDocument
    question: MessageDocument | IdempotencyKey | None
    patched: tuple[str, ...] = ()


def must_look(head: Head, new: NewTurn, *, on_busy: OnBusy, max_waiting: int) -> bool:
    """Whether more than the head has to be known, before a plan can be made or the input refused."""
    if new.replaces is not None:
        return True
    return bool(head.open) and (on_busy != "queue" or len(head.open) > max_waiting)


def refuse_if_busy(
    head: Head, new: NewTurn, running: Sequence[TurnDocument], *, on_busy: OnBusy, max_waiting: int
) -> None:
    """``running``: the turns that have not ended, where the input interrupts. Raises Conflict or QuotaExceeded."""
    if not head.open:
        return
    if on_busy == "reject" or new.replaces is not None:
        raise busy_conversation()
    waiting = len(head.open) - 1
    if on_busy == "interrupt":
        # Whoever interrupts need not count those that it stops, but those that were stopped before.
        waiting = sum(turn.cancel_requested for turn in running[1:])
    if waiting >= max_waiting:
        raise too_many_waiting(waiting)


def plan(
    batch: Batch, head: Head, new: NewTurn, now: float, *, accept_id: str, replacement: Replacement | None = None
) -> Plan:
    """The documents of an accepted input; large bodies go into ``batch``."""
    key = new.key
    document_id = layout.turn_id(key)
    question = None if replacement is None else replacement.question
    asks = question is None
    if question is None:
        question = head.last_position + 1
    answer = head.last_position + (2 if asks else 1)
    tenant_id, conversation_id = batch.partition
    waits = bool(head.open)
    turn = TurnDocument(
        id=document_id,
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        turn_id=key.turn_id,
        home=head.order,
        input=batch.body(documents.json_of(new), f"{layout.ulid_of(key.turn_id)}-input", rewritten=True),
        given_s=new.deadline - new.created_at.timestamp(),
        question=question,
        answer=answer,
        accept_id=accept_id,
        client_turn_id=new.client_turn_id,
        called_key=None if new.client_message_id is None else layout.called_key(new.client_message_id, answer),
        waits=waits,
        lease_until=now if waits else now + UNCLAIMED_S,
    )
    shown = () if replacement is None else replacement.shown
    patched: tuple[str, ...] = shown
    replacing = None
    if replacement is not None and len(shown) > MAX_PATCHES:
        patched = ()
        replacing = Replacing(document_id, replacement.first, head.last_position)
    changed = msgspec.structs.replace(
        head,
        version=head.version + 1,
        message_count=head.message_count - len(shown) + asks,
        last_position=answer,
        open=(*head.open, document_id),
        updated_us=to_us(now),
        replacing=replacing,
    )
    return Plan(changed, turn, _question(batch, new, question if asks else None), patched)


def _question(batch: Batch, new: NewTurn, position: int | None) -> MessageDocument | IdempotencyKey | None:
    """The message of the input; only the row of its key where it has no message of its own."""
    tenant_id, conversation_id = batch.partition
    key_id = None if new.client_turn_id is None else layout.idempotency_id(new.client_turn_id)
    if position is None:
        if key_id is None:
            return None
        return IdempotencyKey(id=key_id, tenant_id=tenant_id, conversation_id=conversation_id, turn_id=new.key.turn_id)
    message = user_message(new, position)
    return MessageDocument(
        id=key_id or layout.message_id(message.message_id),
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        message_id=message.message_id,
        turn_id=message.turn_id,
        role=message.role,
        position=position,
        shown_at=position,
        body=batch.body(documents.json_of(message), f"{layout.ulid_of(new.key.turn_id)}-question"),
    )


class Acceptance:
    """Accepts inputs."""

    def __init__(self, sessions: Sessions, turns: Turns, messages: Messages) -> None:
        self._sessions = sessions
        self._turns = turns
        self._messages = messages

    async def accept(self, new: NewTurn, *, on_busy: OnBusy, max_waiting: int) -> AcceptedTurn:
        partition = layout.conversation_partition(new.key.conversation)
        with metered() as meter:
            async with self._sessions.lock(partition):
                accepted = await self._accept(new, uuid.uuid4().hex, on_busy=on_busy, max_waiting=max_waiting)
        if accepted.created:
            self._sessions.charge(new.key.turn_id, meter.charge)
        return accepted

    async def _accept(self, new: NewTurn, accept_id: str, *, on_busy: OnBusy, max_waiting: int) -> AcceptedTurn:
        partition = layout.conversation_partition(new.key.conversation)
        collided = False
        async for number in rounds():
            head = await self._sessions.head(partition, fresh=number > 0)
            look = collided or must_look(head, new, on_busy=on_busy, max_waiting=max_waiting)
            if number == 0 and (look or head.replacing is not None):
                continue  # what is remembered is good enough to write over, not to refuse by
            if head.replacing is not None:
                await self._messages.settle(head)
                continue
            if look and (earlier := await self._earlier(partition, new)) is not None:
                return await self._again(earlier, new, accept_id)
            running: list[TurnDocument] = []
            if look and on_busy == "interrupt" and head.open:
                running = await self._running(head)
            refuse_if_busy(head, new, running, on_busy=on_busy, max_waiting=max_waiting)
            replacement = None
            if new.replaces is not None:
                replacement = await self._replacement(partition, new.replaces)
            batch = Batch(partition, home=head.order)
            planned = plan(batch, head, new, self._sessions.clock(), accept_id=accept_id, replacement=replacement)
            _fill(batch, planned, running)
            try:
                await self._sessions.write(batch)
            except Refused as refused:
                collided = collided or refused.status == 409 or refused.perhaps_written
                continue
            if planned.head.replacing is not None:
                await self._messages.settle(await self._sessions.head(partition, fresh=False))
            interrupted = [msgspec.structs.replace(turn, cancel_requested=True) for turn in running]
            return AcceptedTurn(
                turn=await self._turns.turn_of(planned.turn),
                created=True,
                waits=planned.turn.waits,
                interrupted=tuple([await self._turns.turn_of(turn) for turn in interrupted]),
            )
        raise AssertionError

    async def _earlier(self, partition: layout.Partition, new: NewTurn) -> TurnDocument | None:
        """The turn that the same input was accepted as before."""
        ids = [layout.turn_id(new.key)]
        if new.client_turn_id is not None:
            ids.append(layout.idempotency_id(new.client_turn_id))
        found = await self._sessions.some(partition, ids)
        own = found.get(ids[0])
        if isinstance(own, TurnDocument):
            return own
        keyed: AnyDocument | None = found.get(ids[-1])
        if isinstance(keyed, MessageDocument | IdempotencyKey):
            return await self._sessions.turn(partition, f"t-{layout.ulid_of(keyed.turn_id)}")
        return None

    async def _again(self, earlier: TurnDocument, new: NewTurn, accept_id: str) -> AcceptedTurn:
        """Raises Conflict where the inputs differ."""
        turn = await self._turns.complete(earlier)
        if turn.query != new.query:
            raise other_query()
        return AcceptedTurn(turn=turn, created=earlier.accept_id == accept_id, waits=turn.waits)

    async def _running(self, head: Head) -> list[TurnDocument]:
        found = await self._sessions.some(head.partition, list(head.open))
        turns = [found.get(document_id) for document_id in head.open]
        return [turn for turn in turns if isinstance(turn, TurnDocument) and not turn.ended]

    async def _replacement(self, partition: layout.Partition, message_id: str) -> Replacement:
        """Raises NotFound for a message that there is not, Conflict for one that has been replaced."""
        target = await self._messages.find(partition, message_id)
        if target is None:
            raise no_message()
        if target.replaced_by is not None:
            raise replaced_since()
        question = None
        if target.role == "assistant":
            asked = await self._sessions.turn(partition, f"t-{layout.ulid_of(target.turn_id)}")
            if asked is None:
                raise no_message()
            question = asked.question
        shown = await self._messages.shown_between(partition, target.position)
        return Replacement(target.position, tuple(shown), question)


def _fill(batch: Batch, planned: Plan, running: Sequence[TurnDocument]) -> None:
    """The head comes first: where the conversation has changed or is gone, nothing else is looked at."""
    batch.replace(planned.head)
    if planned.question is not None:
        batch.create(planned.question)
    batch.create(planned.turn)
    for document_id in planned.patched:
        batch.patch(document_id, {"shownAt": 0, "replacedBy": planned.turn.turn_id})
    for turn in running:
        # None of them can have ended: that would have changed the head.
        batch.patch(turn.id, {"cancelRequested": True})
