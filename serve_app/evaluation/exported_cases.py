"""Cases out of a stored conversation: what was asked and answered in it, as it was shown, with the tool calls and their results.

    question ─► answer (calls, results, text)        one case a conversation, up to its last question that has ended;
    question ─► answer …                             or one for each question, with what came before it

A case ends with the answer that was given, where one was. What was edited away or answered anew is left out, as are questions
that still wait for an answer. Of a history what had neither words nor calls is left out with its question: nothing can be told
of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.conversation import Message, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.trial import RecordedCall
from serve_app.domain.turns import Turn
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.personal_data import Pseudonyms
from serve_app.evaluation.personal_names import NameList
from serve_app.storage.transfer import ConversationSnapshot


class CaseFilter(Struct, frozen=True, kw_only=True):
    """Which questions become cases: asked from ``since`` to before ``until``, by somebody who had ``role``, their answer liked or
    not (``reaction``). ``tags`` are given to every case. None and empty leave it open."""

    since: datetime | None = None
    until: datetime | None = None
    tenants: frozenset[str] = frozenset()
    role: str | None = None
    reaction: str | None = None
    tags: tuple[str, ...] = ()
    each_turn: bool = False


class Redaction(Struct, frozen=True):
    """That personal data is to be replaced. ``names`` are people who may be named in conversations, ``person_fields`` fields of
    tools' results in which people stand, beside those that are known."""

    names: NameList = NameList()
    person_fields: tuple[str, ...] = ()

    def of(self, snapshot: ConversationSnapshot) -> Pseudonyms:
        """Those of a conversation, in which nothing has been learned yet but its user."""
        principals = [held.turn.principal.user_id for held in snapshot.turns[:1]]
        return Pseudonyms(
            dict.fromkeys((snapshot.conversation.key.user_id, *principals)), self.names, self.person_fields
        )


class _Exchange(Struct, frozen=True):
    """A question and what came of it; ``turn`` is the one that answered it."""

    question: Message
    answer: Message | None
    turn: Turn


def cases_of(
    snapshot: ConversationSnapshot,
    wanted: CaseFilter,
    pseudonyms: Pseudonyms | None,
    *,
    chosen: Callable[[str], bool] = lambda _: True,
) -> list[Case]:
    """The cases that a conversation gives, oldest first; of them those whose ids are ``chosen``. Personal data is replaced by
    ``pseudonyms``, which learn of it here; without them it is left in."""
    key = snapshot.conversation.key
    if not key.listed or (wanted.tenants and key.tenant_id not in wanted.tenants):
        return []
    exchanges = list(_exchanges(snapshot))
    places = [place for place, exchange in enumerate(exchanges) if _matches(exchange, wanted)]
    if not wanted.each_turn:
        places = places[-1:]  # the newest, with all that came before it
    places = [place for place in places if chosen(case_id_of(exchanges[place].turn.key.turn_id))]
    if not places:
        return []
    said = [_messages(exchange) for exchange in exchanges[: places[-1] + 1]]
    if pseudonyms is not None:
        for messages in said:
            _learn(pseudonyms, messages)
        # Each message once, however many cases it is part of.
        said = [tuple(_clean(pseudonyms, message) for message in messages) for messages in said]
    return [_case(exchanges, said, place, wanted.tags, exact=pseudonyms is None) for place in places]


def _exchanges(snapshot: ConversationSnapshot) -> Iterator[_Exchange]:
    turns = {held.turn.key.turn_id: held.turn for held in snapshot.turns}
    shown = sorted(
        (message for message in snapshot.messages if message.replaced_by is None), key=lambda one: one.position
    )
    for place, message in enumerate(shown):
        if message.role != "user":
            continue
        after = shown[place + 1] if place + 1 < len(shown) else None
        answer = after if after is not None and after.role == "assistant" else None
        turn = turns.get(answer.turn_id if answer is not None else message.turn_id)
        if turn is not None and turn.ended and message.text.strip():
            yield _Exchange(message, answer, turn)


def _matches(exchange: _Exchange, wanted: CaseFilter) -> bool:
    asked = exchange.question.created_at
    if (wanted.since is not None and asked < wanted.since) or (wanted.until is not None and asked >= wanted.until):
        return False
    if wanted.role is not None and wanted.role not in exchange.turn.principal.roles:
        return False
    liked = None if exchange.answer is None else exchange.answer.reaction
    return wanted.reaction is None or liked == wanted.reaction


def _messages(exchange: _Exchange) -> tuple[CaseMessage, ...]:
    question = CaseMessage(role="user", content=exchange.question.text)
    answer = None if exchange.answer is None else answer_message(exchange.answer)
    return (question,) if answer is None else (question, answer)


def answer_message(message: Message) -> CaseMessage | None:
    """An answer with its calls and their results; its text is that after the last call, as far as there is any. None for one
    that has neither words nor calls."""
    results: dict[str, list[ToolResultPart]] = {}
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            results.setdefault(part.tool_call_id, []).append(part)
    calls: list[RecordedCall] = []
    texts: list[str] = []
    before: list[str] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ToolCallPart):
            before += texts
            texts.clear()
            waiting = results.get(part.tool_call_id)
            # Some providers number their calls anew in each step: the first call has the first result.
            calls.append(_call(part, waiting.pop(0) if waiting else None))
    content = "".join(texts) if "".join(texts).strip() else "".join(before)
    if not content.strip() and not calls:
        return None
    return CaseMessage(role="assistant", content=content, tool_calls=tuple(calls))


def _call(part: ToolCallPart, result: ToolResultPart | None) -> RecordedCall:
    if result is None:
        return RecordedCall(name=part.name, arguments=part.arguments)
    return RecordedCall(name=part.name, arguments=part.arguments, result=result.result, ok=result.ok)


def _case(
    exchanges: Sequence[_Exchange],
    said: Sequence[tuple[CaseMessage, ...]],
    place: int,
    tags: tuple[str, ...],
    *,
    exact: bool,
) -> Case:
    """``exact``: with the second at which it was asked, which would find a person in any log of accesses; else with the day."""
    exchange = exchanges[place]
    turn, answer = exchange.turn, exchange.answer
    facts = [
        f"reaction:{answer.reaction}" if answer is not None and answer.reaction is not None else "",
        turn.state if turn.state != "completed" else "",
        "tools" if answer is not None and any(isinstance(part, ToolCallPart) for part in answer.parts) else "",
        "follow-up" if place else "",
        "attachments" if turn.query.attachments else "",
        f"model:{answer.model_id}" if answer is not None and answer.model_id else "",
    ]
    asked = exchange.question.created_at.astimezone(UTC).isoformat(timespec="seconds")
    metadata: dict[str, Any] = {
        "at": asked if exact else asked[:10],
        # Of ids with random parts, which nobody can guess: the same for the same conversation in every export.
        "turn": hashed(turn.key.turn_id),
        "conversation": hashed(exchanges[0].question.turn_id),
    }
    if answer is not None and answer.model_id:
        metadata["model"] = answer.model_id
    return Case(
        id=case_id_of(turn.key.turn_id),
        messages=_history(said, exchanges, place),
        tags=tuple(dict.fromkeys((*tags, *(fact for fact in facts if fact)))),
        tenant=turn.key.conversation.tenant_id,
        role=",".join(turn.principal.roles) or None,
        metadata=metadata,
    )


def case_id_of(turn_id: str) -> str:
    """The id of the case that a turn's question is: the same in every export, and nothing to find the turn by."""
    return f"turn-{hashed(turn_id)}"


def _history(
    said: Sequence[tuple[CaseMessage, ...]], exchanges: Sequence[_Exchange], place: int
) -> tuple[CaseMessage, ...]:
    """All up to the exchange at ``place``. Of those before it only what has an answer."""
    before = (message for messages in said[:place] if len(messages) == 2 for message in messages)
    question, *answers = said[place]
    if exchanges[place].turn.state != "completed":
        # Half an answer is none that could be compared with. What its calls have brought is kept.
        answers = [replace(answer, content="") for answer in answers if answer.tool_calls]
    return (*before, question, *answers)


def hashed(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()[:20]


def _learn(pseudonyms: Pseudonyms, messages: Sequence[CaseMessage]) -> None:
    for message in messages:
        pseudonyms.learn(message.content)
        for call in message.tool_calls:
            pseudonyms.learn(call.arguments)
            pseudonyms.learn(call.result)


def _clean(pseudonyms: Pseudonyms, message: CaseMessage) -> CaseMessage:
    calls = tuple(
        replace(call, arguments=pseudonyms.value(call.arguments), result=pseudonyms.value(call.result))
        for call in message.tool_calls
    )
    return replace(message, content=pseudonyms.text(message.content), tool_calls=calls)
