"""Edits and new answers: which message a client means, and what takes its place.

A client names messages by ids of its own until it loads a conversation, and by ours after that, so both are understood.
What is replaced leaves the conversation as shown, with all that came after it, and is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from serve_app.domain.conversation import Message
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import Query
from serve_app.errors import InvalidInput, NotFound
from serve_app.storage.port import MAX_PAGE, Store
from serve_app.storage.rules import busy_conversation

MAX_PAGES = 20
"""How far back a question's answer is looked for, in pages."""


@dataclass(frozen=True)
class Branch:
    """What is to be sent. ``client_turn_id`` is the same for a repetition of the same request."""

    replaces: str
    query: Query
    client_turn_id: str
    client_message_id: str | None = None


class Branches:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def edit(self, key: ConversationKey, client_id: str, query: Query) -> Branch | str:
        """The branch that puts ``query`` in the place of a question; a turn id where the question says so already.

        Raises NotFound for a message that is not there, InvalidInput for one that is not the user's.
        """
        question = await self._store.find_message(key, client_id)
        if question.role != "user":
            raise InvalidInput("messageId: only messages of the user can be edited.")
        if question.replaced_by is None and question.text == query.content:
            asked = (await self._store.get_turn(TurnKey(conversation=key, turn_id=question.turn_id))).query
            if asked == query:
                return question.turn_id
        digest = hashlib.sha256(msgspec.json.encode(query)).hexdigest()[:16]
        return Branch(
            replaces=question.message_id,
            query=query,
            client_turn_id=f"edit:{question.message_id}:{digest}",
            client_message_id=client_id,
        )

    async def regenerate(self, key: ConversationKey, client_id: str | None, model_id: str | None) -> Branch | str:
        """The branch that answers a question again: the one whose answer, or which itself, is named; the last one by default.
        The id of the turn where it is being answered again already.

        Raises NotFound where there is no such message, or no answer to it; Conflict while it is being answered at first.
        """
        answer = await self._answer(key, client_id)
        if answer is None:
            return await self._answered_now(key)
        asked = (await self._store.get_turn(TurnKey(conversation=key, turn_id=answer.turn_id))).query
        return Branch(
            replaces=answer.message_id,
            query=asked if model_id is None else replace(asked, model_id=model_id),
            client_turn_id=f"regenerate:{answer.message_id}",
        )

    async def _answered_now(self, key: ConversationKey) -> str:
        """The turn that makes the last question's new answer."""
        active = (await self._store.get_conversation(key)).active_turn_id
        if active is None:
            raise NotFound("There is no answer yet that could be made again.")
        if (await self._store.get_turn(TurnKey(conversation=key, turn_id=active))).replaces is None:
            raise busy_conversation()
        return active

    async def _answer(self, key: ConversationKey, client_id: str | None) -> Message | None:
        """The answer that is named, or that of the question; None where that question is the last thing said."""
        question: Message | None = None
        if client_id is not None:
            named = await self._store.find_message(key, client_id)
            if named.role == "assistant":
                return named
            question = named
        after: Message | None = None
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._store.list_messages(key, cursor=cursor, limit=MAX_PAGE, descending=True)
            for message in page.items:
                if question is None:
                    return message if message.role == "assistant" else None
                if message.message_id == question.message_id:
                    return after if after is not None and after.role == "assistant" else None
                after = message
            if (cursor := page.next_cursor) is None:
                break
        raise NotFound("There is no answer yet that could be made again.")
