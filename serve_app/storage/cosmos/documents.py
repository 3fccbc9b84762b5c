"""The documents of a conversation as they lie in the database: their fields, and how they are read from and made into JSON.

Whatever is more than a few fields is kept as a string of JSON: numbers in a document are doubles, which would change large
integers, and what is replayed must be the same to the byte. A :data:`Body` is such a string, or says where it lies: in a document
beside it (``doc``) or in a blob, so that a document that is written again and again stays small.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct, field

from serve_app.domain.conversation import Conversation, Message, Reaction, Role, SessionPrompt
from serve_app.domain.events import EventRecord
from serve_app.domain.turns import NewTurn, Owner, StepRecord, Turn, TurnState
from serve_app.domain.usage import ModelUsage, Usage
from serve_app.storage.cosmos.layout import Partition, conversation_of, turn_key
from serve_app.storage.rules import MisfitError, datetime_of

Json = dict[str, Any]


class Elsewhere(Struct, frozen=True, omit_defaults=True):
    """Where a body lies that is too large for its document: the id of a document of the same partition, or a blob's name."""

    doc: str | None = None
    blob: str | None = None


Body = str | Elsewhere


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag_field="kind"):
    """What every document has. ``write_id`` names the write that made it so: whoever lost the answer to a write looks
    whether it is their own that lies there."""

    id: str
    tenant_id: str
    conversation_id: str
    etag: str = field(default="", name="_etag")
    ttl: int | None = None
    write_id: str = ""

    @property
    def partition(self) -> Partition:
        return self.tenant_id, self.conversation_id


class Replacing(Struct, frozen=True, rename="camel"):
    """Messages that an edit of a long conversation has taken out of what is shown, and which do not say so themselves yet."""

    turn_id: str
    first: int
    through: int


class Head(Document, frozen=True, kw_only=True, tag="head"):
    """A conversation. ``open`` are the ids of its turns' documents that have not ended, oldest first.

    ``order``: its place among all conversations by when it was made. ``version`` starts there and grows with each write, so
    that it also grows where a conversation is made again under its old id. ``prompt`` is the fingerprint of the prompt's
    document. ``deleted``: to be cleared away; ``cleared``: only this tombstone is left.
    """

    created_us: int
    updated_us: int
    order: int = field(name="madeOrder")
    version: int
    title: str | None = None
    archived: bool = False
    message_count: int = 0
    last_position: int = 0
    open: tuple[str, ...] = ()
    prompt: str | None = None
    replacing: Replacing | None = None
    deleted: bool = False
    cleared: bool = False


class Prompt(Document, frozen=True, kw_only=True, tag="prompt"):
    fingerprint: str
    body: Body


class MessageDocument(Document, frozen=True, kw_only=True, tag="message"):
    """``shown_at`` is the position while the message is shown, else 0."""

    message_id: str
    turn_id: str
    role: Role
    position: int
    body: Body
    shown_at: int = 0
    replaced_by: str | None = None
    reaction: Reaction | None = None


class IdempotencyKey(Document, frozen=True, kw_only=True, tag="key"):
    """Stands for the question where a turn that was given a key has none of its own."""

    turn_id: str


Record = tuple[int, int, int, bool, str]
"""Of an event: seq, step, attempt, whether it is terminal, body."""


def kept_record(record: EventRecord) -> Record:
    """Raises MisfitError for a body that is no text."""
    try:
        return record.seq, record.step, record.attempt, record.terminal, record.body.decode()
    except UnicodeDecodeError as error:
        raise MisfitError("a record's body is not UTF-8") from error


def event_record(kept: Record) -> EventRecord:
    seq, step, attempt, terminal, body = kept
    return EventRecord(seq=seq, step=step, attempt=attempt, terminal=terminal, body=body.encode())


class Step(Struct, frozen=True, rename="camel"):
    """A checkpoint, and what has to be known of it where its body lies elsewhere."""

    step: int
    last_seq: int
    fingerprint: str
    input_tokens: int
    output_tokens: int
    body: Body


class TurnDocument(Document, frozen=True, kw_only=True, tag="turn"):
    """A turn. ``turn_id`` is the whole id, ``home`` the order of its conversation, ``given_s`` how long it was given from when
    it was made until its deadline, ``deadline`` the one it has if it was let through. ``accept_id`` names the call that
    accepted it. Positions of its ``question`` and ``answer``. ``tail`` are the newest records of its log, as long as they are few
    and small: a tool's call and its result then take one write each."""

    turn_id: str
    home: int
    input: Body
    given_s: float
    question: int
    answer: int
    accept_id: str
    client_turn_id: str | None = None
    called_key: str | None = None
    state: TurnState = "accepted"
    waits: bool = False
    epoch: int = 0
    last_seq: int = 1
    shown_seq: int = 1
    attempts: int = 0
    owner_id: str | None = None
    owner_endpoint: str = ""
    lease_until: float = 0.0
    cancel_requested: bool = False
    was_let_through: bool = False
    deadline: float | None = None
    steps: tuple[Step, ...] = ()
    tail: tuple[Record, ...] = ()
    finished_us: int | None = None
    outcome: str | None = None
    request_charge: float = 0.0
    pruned: bool = False
    """The log did not come along when the turn was copied here."""

    @property
    def ended(self) -> bool:
        return self.finished_us is not None


class Outcome(Struct, frozen=True, kw_only=True):
    """What a finish leaves on the turn."""

    usage: Usage
    timings_ms: dict[str, int]
    model_id: str | None = None
    earlier: tuple[ModelUsage, ...] = ()


class LogEntry(Document, frozen=True, kw_only=True, tag="log"):
    """A stretch of a turn's records, as a list or, where they are many, elsewhere."""

    log_key: str
    records: list[Record] | Elsewhere


class Side(Document, frozen=True, kw_only=True, tag="side"):
    """A body of another document."""

    body: str


AnyDocument = Head | Prompt | MessageDocument | IdempotencyKey | TurnDocument | LogEntry | Side

ENCODER = msgspec.json.Encoder()
_INPUT: msgspec.json.Decoder[NewTurn] = msgspec.json.Decoder(NewTurn)
_STEP: msgspec.json.Decoder[StepRecord] = msgspec.json.Decoder(StepRecord)
_OUTCOME: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
_MESSAGE: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_PROMPT: msgspec.json.Decoder[SessionPrompt] = msgspec.json.Decoder(SessionPrompt)


def read(json: Json) -> AnyDocument:
    document: AnyDocument = msgspec.convert(json, AnyDocument)
    return document


def written(document: Document) -> Json:
    """As it is sent: without the etag, which is the database's."""
    json: Json = msgspec.to_builtins(document)
    json.pop("_etag", None)
    return json


def json_of(value: object) -> str:
    return ENCODER.encode(value).decode()


def fingerprint(json: str) -> str:
    return hashlib.sha256(json.encode()).hexdigest()[:32]


def input_of(json: str) -> NewTurn:
    return _INPUT.decode(json)


def outcome_of(json: str) -> Outcome:
    return _OUTCOME.decode(json)


def prompt_of(json: str) -> SessionPrompt:
    return _PROMPT.decode(json)


def bare(etag: str) -> str:
    """As everybody else knows it: the database's stands between quotes."""
    return etag.strip('"')


def conversation(head: Head, prompt: SessionPrompt | None) -> Conversation:
    key = conversation_of(head.partition)
    return Conversation(
        key=key,
        created_at=datetime_of(head.created_us),
        updated_at=datetime_of(head.updated_us),
        title=head.title,
        archived=head.archived,
        session_prompt=prompt,
        message_count=head.message_count,
        active_turn_id=turn_key(head.partition, head.open[0]).turn_id if head.open else None,
        etag=bare(head.etag),
    )


def message(document: MessageDocument, json: str) -> Message:
    kept = _MESSAGE.decode(json)
    if document.reaction is None and document.replaced_by is None:
        return kept
    return msgspec.structs.replace(kept, reaction=document.reaction, replaced_by=document.replaced_by)


def turn(document: TurnDocument, accepted: str, steps: list[str]) -> Turn:
    """``accepted`` and ``steps`` are the bodies, wherever they lay."""
    new = input_of(accepted)
    outcome = None if document.outcome is None else outcome_of(document.outcome)
    done = tuple(_STEP.decode(step) for step in steps)
    owner = None
    if document.owner_id is not None:
        owner = Owner(replica_id=document.owner_id, endpoint=document.owner_endpoint)
    return Turn(
        key=new.key,
        principal=new.principal,
        query=new.query,
        created_at=new.created_at,
        deadline=new.deadline if document.deadline is None else document.deadline,
        client_turn_id=new.client_turn_id,
        request_id=new.request_id,
        client_message_id=new.client_message_id,
        replaces=new.replaces,
        state=document.state,
        waits=document.waits,
        epoch=document.epoch,
        last_seq=document.last_seq,
        shown_seq=document.shown_seq,
        attempts=document.attempts,
        owner=owner,
        cancel_requested=document.cancel_requested,
        steps=done,
        usage=sum((step.usage for step in done), Usage()) if outcome is None else outcome.usage,
        finished_at=None if document.finished_us is None else datetime_of(document.finished_us),
        timings_ms={} if outcome is None else outcome.timings_ms,
        request_charge=document.request_charge,
        priority=new.priority,
    )
