"""What becomes of a share of an append, decided on documents alone: written, a repetition, lost, or a misfit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from serve_app.domain.events import EventRecord
from serve_app.domain.turns import AppendTurn, FinishTurn, StepRecord
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.documents import (
    Elsewhere,
    Head,
    LogEntry,
    MessageDocument,
    Outcome,
    Prompt,
    Step,
    TurnDocument,
)
from serve_app.storage.rules import UNCLAIMED_S, MisfitError, fresh_records, to_us

TAIL_CHARS = 4_096
"""A longer tail becomes an entry: the turn's document is written again with each append."""
_EXPIRES_LATER_S = 3_600
"""How much longer a log entry lives than its retention and the time its turn is given: a turn may end late. It counts from when
the entry was written, not from the turn's end."""


class Known(Struct, frozen=True):
    """What a share is decided on. ``head`` where it touches the conversation, ``follower`` where it may let one through."""

    turn: TurnDocument
    head: Head | None = None
    follower: TurnDocument | None = None


class Decision(Struct, frozen=True):
    """``write``: something is to be written. ``repeated``: it was; ``records`` must be compared with what the log has."""

    status: Literal["write", "repeated", "lost"]
    turn: TurnDocument
    records: tuple[EventRecord, ...] = ()
    follower: TurnDocument | None = None


def decide(batch: Batch, known: Known, share: AppendTurn, now: float, *, retention_s: float) -> Decision:
    """What becomes of a share; what it writes goes into ``batch``. Raises MisfitError."""
    turn = known.turn
    if turn.epoch != share.epoch:
        return Decision("lost", turn)
    fresh = fresh_records(share, turn.last_seq)
    repeated = share.records[: len(share.records) - len(fresh)]
    if turn.ended:
        if fresh or not share.records:
            return Decision("lost", turn)
        named = _named(known) if share.finish is not None else None
        return Decision("repeated", turn, repeated, named)
    changed = turn
    for step in share.steps:
        changed = _with_step(batch, changed, step, repeated=not fresh)
    last_seq = fresh[-1].seq if fresh else turn.last_seq
    changed = msgspec.structs.replace(
        changed,
        last_seq=last_seq,
        shown_seq=max(turn.shown_seq, last_seq + share.ahead),
        attempts=max(changed.attempts, share.attempt),
        lease_until=now + share.lease_s,
    )
    head = known.head
    if share.session_prompt is not None and head is not None:
        head = _with_prompt(batch, head, share)
    follower = None
    if share.finish is not None and head is not None:
        changed, head, follower = _finish(batch, changed, head, known.follower, share.finish, now)
    if follower is not None:
        batch.replace(follower)
    if head is not None and head is not known.head:
        batch.replace(msgspec.structs.replace(head, version=head.version + 1))
    if fresh:
        changed = _with_records(batch, changed, fresh, retention_s)
    return Decision("write", changed, repeated, follower)


def needs_head(share: AppendTurn) -> bool:
    return share.finish is not None or share.session_prompt is not None


def next_of(head: Head, turn: TurnDocument) -> str | None:
    """The oldest other turn that has not ended."""
    return next((document_id for document_id in head.open if document_id != turn.id), None)


def _named(known: Known) -> TurnDocument | None:
    """The turn whose turn it is, where it has been let through and nobody has claimed it yet."""
    follower = known.follower
    if follower is None or follower.ended or not follower.was_let_through or follower.epoch > 0:
        return None
    return follower


def _with_step(batch: Batch, turn: TurnDocument, step: StepRecord, *, repeated: bool) -> TurnDocument:
    """The turn with a checkpoint more or anew, the next step's attempts given back.

    What is older than what is kept changes nothing where it is ``repeated``: an append that arrives twice. Else raises
    MisfitError where a later step has been kept.
    """
    newest = turn.steps[-1] if turn.steps else None
    if newest is not None and newest.step > step.step:
        if repeated:
            return turn
        raise MisfitError(f"step {step.step} came after step {newest.step}")
    if newest is not None and newest.step == step.step:
        if newest.fingerprint == documents.fingerprint(documents.json_of(step)) or newest.last_seq > step.last_seq:
            return turn
        if isinstance(newest.body, Elsewhere) and newest.body.doc is not None:
            batch.delete(newest.body.doc)
    kept = step_of(batch, layout.ulid_of(turn.turn_id), step)
    earlier = tuple(old for old in turn.steps if old.step != step.step)
    return msgspec.structs.replace(turn, steps=(*earlier, kept), attempts=step.attempts_begun)


def step_of(batch: Batch, ulid: str, step: StepRecord) -> Step:
    """A checkpoint as its turn keeps it."""
    json = documents.json_of(step)
    return Step(
        step.step,
        step.last_seq,
        documents.fingerprint(json),
        step.usage.input_tokens,
        step.usage.output_tokens,
        batch.body(json, f"{ulid}-{step.step}", rewritten=True),
    )


def _with_prompt(batch: Batch, head: Head, share: AppendTurn) -> Head:
    json = documents.json_of(share.session_prompt)
    fingerprint = documents.fingerprint(json)
    if head.prompt == fingerprint:
        return head
    batch.upsert(prompt_document(batch, json, fingerprint))
    return msgspec.structs.replace(head, prompt=fingerprint)


def prompt_document(batch: Batch, json: str, fingerprint: str) -> Prompt:
    tenant_id, conversation_id = batch.partition
    return Prompt(
        id=layout.PROMPT,
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        fingerprint=fingerprint,
        body=batch.body(json, "prompt"),
    )


def _with_records(batch: Batch, turn: TurnDocument, fresh: Sequence[EventRecord], retention_s: float) -> TurnDocument:
    """The turn with a longer log: in its tail, or with an entry of all that its tail had. Raises MisfitError."""
    kept = (*turn.tail, *map(documents.kept_record, fresh))
    if not turn.ended and sum(len(record[-1]) for record in kept) <= TAIL_CHARS:
        return msgspec.structs.replace(turn, tail=kept)
    batch.create(log_entry(batch, turn.turn_id, kept, retention_s + max(0.0, turn.given_s)))
    return msgspec.structs.replace(turn, tail=())


def log_entry(batch: Batch, turn_id: str, kept: Sequence[documents.Record], retention_s: float) -> LogEntry:
    ulid = layout.ulid_of(turn_id)
    last = kept[-1][0]
    body = batch.body(documents.json_of(kept), f"{ulid}-log-{last}")
    tenant_id, conversation_id = batch.partition
    return LogEntry(
        id=f"e-{ulid}-{last:08d}",
        tenant_id=tenant_id,
        conversation_id=conversation_id,
        log_key=layout.log_key(ulid, last),
        records=body if isinstance(body, Elsewhere) else list(kept),
        ttl=int(retention_s) + _EXPIRES_LATER_S,
    )


def _finish(
    batch: Batch, turn: TurnDocument, head: Head, follower: TurnDocument | None, finish: FinishTurn, now: float
) -> tuple[TurnDocument, Head, TurnDocument | None]:
    """The turn ended, its conversation, and the turn that has waited for it and is let through."""
    outcome = Outcome(
        usage=finish.usage, timings_ms=finish.timings_ms, model_id=finish.model_id, earlier=finish.earlier
    )
    ended = msgspec.structs.replace(
        turn,
        state=finish.state,
        shown_seq=turn.last_seq,
        finished_us=to_us(now),
        outcome=documents.json_of(outcome),
    )
    message = msgspec.structs.replace(finish.message, position=turn.answer)
    tenant_id, conversation_id = batch.partition
    batch.create(
        MessageDocument(
            id=layout.message_id(message.message_id),
            tenant_id=tenant_id,
            conversation_id=conversation_id,
            message_id=message.message_id,
            turn_id=message.turn_id,
            role=message.role,
            position=turn.answer,
            shown_at=turn.answer,
            body=batch.body(documents.json_of(message), f"{layout.ulid_of(turn.turn_id)}-answer"),
        )
    )
    changed = msgspec.structs.replace(
        head,
        message_count=head.message_count + 1,
        open=tuple(document_id for document_id in head.open if document_id != turn.id),
        updated_us=to_us(now),
    )
    if follower is None or not follower.waits:
        return ended, changed, None
    let_through = msgspec.structs.replace(
        follower,
        waits=False,
        deadline=now + follower.given_s,
        lease_until=now + UNCLAIMED_S,
        was_let_through=True,
    )
    return ended, changed, let_through
