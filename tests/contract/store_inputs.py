"""What the tests of the store give to it: a clock to turn, owners, turns and the records of their logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from serve_app.domain.conversation import Message, SessionPrompt, TextPart, ToolCallPart
from serve_app.domain.events import ChatResponse, EventRecord, TextDelta, TurnCancelled
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import (
    AppendReply,
    AppendTurn,
    FinishTurn,
    NewTurn,
    Owner,
    Query,
    StepRecord,
    TurnClaim,
)
from serve_app.domain.usage import Usage
from serve_app.storage.port import Store

ANNA = Principal(tenant_id="acme", user_id="anna", roles=("sales",))
OTHERS = (
    Principal(tenant_id="acme", user_id="bert"),
    Principal(tenant_id="globex", user_id="anna"),
)
FIRST, SECOND = Owner(replica_id="r1", endpoint="tcp://r1"), Owner(replica_id="r2", endpoint="tcp://r2")
PROMPT = SessionPrompt(name="assistant", version="1", text="Be kind.", fingerprint="f1")
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


class Clock:
    """The store's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def conversation_key(conversation_id: str = "c1", principal: Principal = ANNA) -> ConversationKey:
    return ConversationKey.of(principal, conversation_id)


def new_turn(
    conversation: ConversationKey,
    content: str = "Hello",
    *,
    client_turn_id: str | None = None,
    client_message_id: str | None = None,
    replaces: str | None = None,
    key: TurnKey | None = None,
) -> NewTurn:
    return NewTurn(
        key=key or TurnKey.new(conversation),
        principal=ANNA,
        query=Query(content=content, attachments=("file_1",)),
        created_at=AT,
        deadline=1_700_000_300.5,
        client_turn_id=client_turn_id,
        request_id="req_1",
        client_message_id=client_message_id,
        replaces=replaces,
    )


def delta(key: TurnKey, seq: int, text: str = "word ", *, attempt: int = 1) -> EventRecord:
    return EventRecord.of(TextDelta(turn_id=key.turn_id, seq=seq, delta=text), attempt=attempt)


def deltas(key: TurnKey, first: int, last: int) -> tuple[EventRecord, ...]:
    return tuple(delta(key, seq, f"w{seq} ") for seq in range(first, last + 1))


def response(key: TurnKey, seq: int, text: str = "Done.") -> EventRecord:
    return EventRecord.of(
        ChatResponse(turn_id=key.turn_id, seq=seq, message_id=key.assistant_message_id, response=text)
    )


def cancelled(key: TurnKey, seq: int) -> EventRecord:
    return EventRecord.of(TurnCancelled(turn_id=key.turn_id, seq=seq))


def step(number: int = 0, last_seq: int = 1) -> StepRecord:
    return StepRecord(
        step=number,
        attempt=1,
        parts=(TextPart(text=f"step {number}"),),
        usage=Usage(input_tokens=10, output_tokens=number + 1),
        finish_reason="stop",
        model_id="m1",
        last_seq=last_seq,
        model_ms=12,
    )


def calling(number: int = 0, last_seq: int = 1) -> StepRecord:
    """A step whose tool has not answered yet."""
    call = ToolCallPart(tool_call_id="call_1", name="crm.find", arguments={})
    return replace(step(number, last_seq), parts=(call,), finish_reason="tool_calls")


def finish(key: TurnKey, text: str = "Done.") -> FinishTurn:
    usage = Usage(input_tokens=11, output_tokens=7)
    return FinishTurn(
        state="completed",
        message=Message(
            message_id=key.assistant_message_id,
            turn_id=key.turn_id,
            role="assistant",
            parts=(TextPart(text=text),),
            created_at=AT,
            model_id="m1",
            usage=usage,
        ),
        usage=usage,
        model_id="m1",
        timings_ms={"model": 120},
    )


def share(
    key: TurnKey,
    *records: EventRecord,
    epoch: int = 1,
    lease_s: float = 5.0,
    attempt: int = 0,
    step: StepRecord | None = None,
    session_prompt: SessionPrompt | None = None,
    finish: FinishTurn | None = None,
    ahead: int = 0,
) -> AppendTurn:
    return AppendTurn(
        key=key,
        epoch=epoch,
        lease_s=lease_s,
        attempt=attempt,
        records=records,
        steps=() if step is None else (step,),
        session_prompt=session_prompt,
        finish=finish,
        ahead=ahead,
    )


async def accepted(store: Store, conversation: ConversationKey, content: str = "Hello") -> TurnKey:
    """A turn accepted in a conversation that is made if need be."""
    await store.ensure_conversation(conversation)
    turn = await store.accept_turn(new_turn(conversation, content))
    return turn.turn.key


async def claimed(store: Store, key: TurnKey, owner: Owner = FIRST, *, history_limit: int = 16) -> TurnClaim:
    return await store.claim_turn(key, owner, lease_s=5.0, history_limit=history_limit)


async def running(store: Store, conversation: ConversationKey, content: str = "Hello") -> TurnKey:
    key = await accepted(store, conversation, content)
    await claimed(store, key)
    return key


async def ended(store: Store, key: TurnKey, answer: str = "Done.") -> AppendReply:
    """Claims a turn and ends it with an answer."""
    epoch = (await claimed(store, key)).turn.epoch
    return only(await store.append([share(key, response(key, 2, answer), epoch=epoch, finish=finish(key, answer))]))


async def queued(store: Store, conversation: ConversationKey, content: str = "And?") -> TurnKey:
    """A turn that waits behind one of its conversation."""
    accepted = await store.accept_turn(new_turn(conversation, content), on_busy="queue")
    assert accepted.waits
    return accepted.turn.key


async def shown(store: Store, conversation: ConversationKey, *, replaced: bool = False) -> list[str]:
    """The texts of a conversation, in order."""
    page = await store.list_messages(conversation, replaced=replaced)
    return [message.text for message in page.items]


async def completed(
    store: Store, conversation: ConversationKey, content: str = "Hello", answer: str = "Done."
) -> TurnKey:
    """A whole turn: its user message, one answer of two records, its end."""
    key = await running(store, conversation, content)
    ended = share(key, delta(key, 2, answer), response(key, 3, answer), finish=finish(key, answer))
    assert only(await store.append([ended])).status == "ok"
    return key


def only(replies: Sequence[AppendReply]) -> AppendReply:
    (reply,) = replies
    return reply
