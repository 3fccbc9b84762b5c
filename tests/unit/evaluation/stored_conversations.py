"""Conversations as a store gives them for copying, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from ulid import ULID

from serve_app.domain.conversation import Conversation, Message, MessageStatus, Part, Reaction, TextPart
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import Query, Turn, TurnState
from serve_app.storage.transfer import ConversationSnapshot, TurnSnapshot

AT = datetime(2026, 11, 10, 9, 30, 15, tzinfo=UTC)
ANNA = Principal(tenant_id="acme", user_id="anna.keller", roles=("sales",))


class Said(Struct, frozen=True, kw_only=True):
    """A question and its answer; ``parts`` in place of a text."""

    question: str
    answer: str = "Done."
    parts: tuple[Part, ...] = ()
    state: TurnState = "completed"
    reaction: Reaction | None = None
    replaced: bool = False
    after_days: float = 0.0
    attachments: tuple[str, ...] = ()


def conversation(
    said: Sequence[Said], *, name: str = "c1", principal: Principal = ANNA, at: datetime = AT, order: int = 1
) -> ConversationSnapshot:
    key = ConversationKey(tenant_id=principal.tenant_id, user_id=principal.user_id, conversation_id=name)
    messages: list[Message] = []
    turns: list[TurnSnapshot] = []
    for number, one in enumerate(said):
        asked = at + timedelta(days=one.after_days, minutes=number)
        ulid = ULID.from_datetime(asked)
        turn = TurnKey(conversation=key, turn_id=f"{name}.{ulid}")
        gone = "another" if one.replaced else None
        question = Message(
            message_id=turn.user_message_id,
            turn_id=turn.turn_id,
            role="user",
            parts=(TextPart(text=one.question),),
            created_at=asked,
            position=2 * number + 1,
            replaced_by=gone,
        )
        messages.append(question)
        if one.state in ("completed", "failed", "cancelled"):
            status: MessageStatus = "complete" if one.state == "completed" else one.state
            answer = Message(
                message_id=turn.assistant_message_id,
                turn_id=turn.turn_id,
                role="assistant",
                parts=one.parts or ((TextPart(text=one.answer),) if one.answer else ()),
                created_at=asked + timedelta(seconds=5),
                position=2 * number + 2,
                status=status,
                model_id="m-1",
                reaction=one.reaction,
                replaced_by=gone,
            )
            messages.append(answer)
        held = Turn(
            key=turn,
            principal=principal,
            query=Query(content=one.question, attachments=one.attachments),
            created_at=asked,
            deadline=asked.timestamp() + 300,
            state=one.state,
            finished_at=None if one.state == "running" else asked + timedelta(seconds=5),
        )
        turns.append(TurnSnapshot(turn=held, question=2 * number + 1, answer=2 * number + 2, lease_until=0.0))
    last = at if not said else at + timedelta(days=max(one.after_days for one in said))
    return ConversationSnapshot(
        conversation=Conversation(key=key, created_at=at, updated_at=last, message_count=len(messages)),
        order=order,
        last_position=2 * len(said),
        messages=tuple(messages),
        turns=tuple(turns),
    )
