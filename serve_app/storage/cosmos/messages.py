"""The messages of a conversation: listed by position, found, reacted to, and taken out of what is shown."""

from __future__ import annotations

import msgspec
from ulid import ULID

from serve_app.domain.conversation import Message, Page, Reaction, TextPart
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.documents import Head, MessageDocument, TurnDocument
from serve_app.storage.cosmos.layout import Partition
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.sessions import BodyMoved, Sessions, rounds
from serve_app.storage.pages import PAGE_BYTES, MessageCursor, encode_cursor
from serve_app.storage.rules import no_conversation, no_message
from serve_app.telemetry import logger

MAX_PATCHES = 80
"""Most messages that are replaced in one batch, which may have a hundred operations."""
MISSING = "[The text of this message is missing from the store.]"
_NO_POSITION = 2**53 - 1


class Messages:
    """``shown_at`` is 0 once a message is replaced, and every query of those shown asks for more than 0."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def page(
        self,
        partition: Partition,
        *,
        after: MessageCursor | None,
        limit: int,
        descending: bool,
        replaced: bool,
    ) -> Page[Message]:
        await self.settled(partition)
        field = "position" if replaced else "shownAt"
        if descending:
            least, most = 0, _NO_POSITION if after is None else after.position
        else:
            least, most = 0 if after is None else after.position, _NO_POSITION
        found = await self._sessions.query(
            partition,
            f"c.{field} > @least AND c.{field} < @most",
            {"@least": least, "@most": min(most, _NO_POSITION)},
            order=f"{field} {'DESC' if descending else 'ASC'}",
            limit=limit + 1,
            max_bytes=PAGE_BYTES,
        )
        items: list[Message] = []
        size = 0
        more = None
        for document in found:
            message, length = await self._message(document)
            size += length
            if len(items) >= limit or (items and size > PAGE_BYTES):
                more = encode_cursor(MessageCursor(descending=descending, position=items[-1].position))
                break
            items.append(message)
        return Page(items=tuple(items), next_cursor=more)

    async def history(self, partition: Partition, *, before: int, limit: int) -> tuple[Message, ...]:
        """The newest messages shown before a position, oldest first: one query, however long the conversation."""
        if limit < 1:
            return ()
        found = await self._sessions.query(
            partition,
            "c.shownAt > 0 AND c.shownAt < @before",
            {"@before": before},
            order="shownAt DESC",
            limit=limit,
            max_bytes=PAGE_BYTES,
        )
        items: list[Message] = []
        size = 0
        for document in found:
            message, length = await self._message(document)
            size += length
            if items and size > PAGE_BYTES:
                break
            items.append(message)
        return tuple(reversed(items))

    async def get(self, partition: Partition, message_id: str) -> Message:
        """Raises NotFound."""
        await self.settled(partition)
        found = await self.find(partition, message_id)
        if found is None:
            raise no_message()
        return (await self._message(found))[0]

    async def called(self, partition: Partition, client_id: str) -> Message:
        """The question of the newest turn that the client gave this id for it, else the message with the id. Raises NotFound."""
        await self.settled(partition)
        prefix = layout.called_prefix(client_id)
        turns = await self._sessions.query(
            partition,
            "c.calledKey > @prefix AND c.calledKey < @end",
            {"@prefix": prefix, "@end": f"{prefix}~"},
            order="calledKey DESC",
            limit=1,
        )
        for turn in turns:
            if isinstance(turn, TurnDocument):
                for document in await self._sessions.query(
                    partition, "c.position = @position", {"@position": turn.question}, limit=1
                ):
                    return (await self._message(document))[0]
        return await self.get(partition, client_id)

    async def react(self, partition: Partition, message_id: str, reaction: Reaction | None) -> Message:
        """Raises NotFound."""
        await self.settled(partition)
        async for _ in rounds():
            found = await self.find(partition, message_id)
            if found is None:
                raise no_message()
            batch = Batch(partition, home=0)
            batch.patch(found.id, {"reaction": reaction})
            try:
                await self._sessions.write(batch)
            except Refused:
                continue  # gone meanwhile
            return (await self._message(msgspec.structs.replace(found, reaction=reaction)))[0]
        raise AssertionError

    async def find(self, partition: Partition, message_id: str) -> MessageDocument | None:
        found = await self._sessions.query(partition, "c.messageId = @message", {"@message": message_id}, limit=1)
        return next((document for document in found if isinstance(document, MessageDocument)), None)

    async def shown_between(self, partition: Partition, first: int, through: int = _NO_POSITION) -> list[str]:
        """The ids of the documents of the messages shown from a position on."""
        found = await self._sessions.connection.query(
            layout.SESSIONS,
            partition,
            "c.shownAt >= @first AND c.shownAt <= @through",
            {"@first": first, "@through": through},
            select="c.id",
            limit=10_000,
        )
        return [str(row["id"]) for row in found]

    async def settled(self, partition: Partition) -> Head:
        """The head of a conversation whose messages all say what they are. Raises NotFound."""
        async for _ in rounds():
            head = await self._sessions.head(partition)
            if head.replacing is None:
                return head
            await self.settle(head)
        raise AssertionError

    async def settle(self, head: Head) -> None:
        """Goes through with the edit of a long conversation, whoever began it: its messages, then the mark on its head.

        Doing it twice, or two at once, comes to the same: what is set is set.
        """
        replacing = head.replacing
        if replacing is None:
            return
        turn_id = layout.turn_key(head.partition, replacing.turn_id).turn_id
        while shown := await self.shown_between(head.partition, replacing.first, replacing.through):
            for start in range(0, len(shown), MAX_PATCHES):
                batch = Batch(head.partition, home=head.order)
                for document_id in shown[start : start + MAX_PATCHES]:
                    batch.patch(document_id, {"shownAt": 0, "replacedBy": turn_id})
                try:
                    await self._sessions.write(batch)
                except Refused:
                    return  # the conversation is being deleted; whoever asked finds out
        done = Batch(head.partition, home=head.order)
        done.replace(msgspec.structs.replace(head, replacing=None, version=head.version + 1))
        try:
            await self._sessions.write(done)
        except Refused:
            return  # the head has changed; whoever asked reads it again

    async def _message(self, document: documents.AnyDocument) -> tuple[Message, int]:
        """And how large it is. Raises NotFound where it has gone, with its conversation."""
        assert isinstance(document, MessageDocument)  # noqa: S101 - positions belong to messages
        try:
            json = await self._sessions.body(document.partition, document.body)
        except BodyMoved:
            await self._sessions.head(document.partition)
            if await self._sessions.get(document.partition, document.id) is None:
                raise no_conversation() from None
            _log.error("the body of a message is missing", message_id=document.message_id)
            return _bodiless(document), len(MISSING)
        return documents.message(document, json), len(json)


def _bodiless(document: MessageDocument) -> Message:
    """A message whose body is lost, so that its conversation can still be read and gone on with."""
    return Message(
        message_id=document.message_id,
        turn_id=document.turn_id,
        role=document.role,
        parts=(TextPart(text=MISSING),),
        created_at=ULID.from_str(layout.ulid_of(document.turn_id)).datetime,
        position=document.position,
        reaction=document.reaction,
        replaced_by=document.replaced_by,
    )


_log = logger("storage")
