"""Removing conversations: a tombstone first, which hides all of it at once, then what it hides, in pieces.

Every piece is removed under the condition that the tombstone is still there, so that who stalls while clearing can never touch a
conversation that was made again under the old id. The empty tombstone stays for a day: it tells the projection of every replica
that the row in the inbox has to go, whoever may have written it last.
"""

from __future__ import annotations

import asyncio

from serve_app.domain.ids import ConversationKey
from serve_app.errors import Overloaded, ParleyError
from serve_app.storage.cosmos import layout
from serve_app.storage.cosmos.batch import Batch, blob_prefix
from serve_app.storage.cosmos.documents import Head
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.sessions import Sessions, rounds
from serve_app.storage.rules import no_conversation
from serve_app.telemetry import logger

PIECE = 90
"""Documents removed by one batch, which may have a hundred operations."""
TOMBSTONE_TTL_S = 86_400
_PATIENCE = 20
_CLEAR_S = 5.0
"""How long a deletion waits for what is gone already to be cleared away, too."""


class Removals:
    """Deletes conversations."""

    def __init__(self, sessions: Sessions, inbox: Inbox) -> None:
        self._sessions = sessions
        self._inbox = inbox

    async def delete(self, key: ConversationKey) -> None:
        """Raises NotFound. From the first write on nobody finds the conversation or anything in it."""
        partition = layout.conversation_partition(key)
        order: int | None = None
        async with self._sessions.lock(partition):
            async for _ in rounds():
                found = await self._sessions.get(partition, layout.HEAD)
                head = found if isinstance(found, Head) and not found.deleted else None
                if order is not None and (head is None or head.order != order):
                    return  # gone, by us or by another; what has been made there since is another conversation
                if head is None:
                    raise no_conversation()
                order = head.order
                batch = Batch(partition, home=head.order)
                batch.replace(_tombstone(head))
                # Those that run go in the same transaction: from now on their owners have lost them.
                for document_id in head.open:
                    batch.delete(document_id)
                try:
                    await self._sessions.write(batch)
                except Refused:
                    continue
                found = await self._sessions.get(partition, layout.HEAD)
                if isinstance(found, Head) and found.deleted:
                    await self._clear_patiently(found)
                return

    async def _clear_patiently(self, tombstone: Head) -> None:
        """The conversation is gone already; what is not cleared away now will be by the projection."""
        try:
            async with asyncio.timeout(_CLEAR_S):
                await self.clear(tombstone)
        except (ParleyError, TimeoutError) as error:
            _log.warning("a conversation is not cleared away yet", reason=str(error) or "it takes long")

    async def clear(self, tombstone: Head) -> None:
        """Removes what a tombstone hides, if anything is left. Doing it twice, or two at once, comes to the same.

        First of all what is still seen of it, its row; last what lies elsewhere, whose store may be away by itself.
        """
        await self._inbox.delete(tombstone)
        partition = tombstone.partition
        condition = f"FROM c WHERE c.deleted = true AND c.madeOrder = {tombstone.order}"
        fruitless = 0
        while ids := await self._left(tombstone):
            if fruitless >= _PATIENCE:
                raise Overloaded("This conversation is being removed; try again in a moment.")
            for start in range(0, len(ids), PIECE):
                piece = Batch(partition, home=tombstone.order)
                piece.patch(layout.HEAD, {"version": tombstone.version + 1}, condition)
                for document_id in ids[start : start + PIECE]:
                    piece.delete(document_id)
                try:
                    await self._sessions.write(piece)
                except Refused as refused:
                    if refused.status == 412:
                        return  # cleared by another, and made again
                    fruitless += 1
                    break  # another clears as well: see what is left
        await self._sessions.bodies.delete_prefix(blob_prefix(partition, tombstone.order))
        done = Batch(partition, home=tombstone.order)
        done.patch(layout.HEAD, {"cleared": True, "ttl": TOMBSTONE_TTL_S}, condition)
        try:
            await self._sessions.write(done)
        except Refused:
            return

    async def _left(self, tombstone: Head) -> list[str]:
        found = await self._sessions.connection.query(
            layout.SESSIONS, tombstone.partition, "c.id != @head", {"@head": layout.HEAD}, select="c.id", limit=1_000
        )
        return [str(row["id"]) for row in found]


def _tombstone(head: Head) -> Head:
    return Head(
        id=head.id,
        tenant_id=head.tenant_id,
        conversation_id=head.conversation_id,
        etag=head.etag,
        created_us=head.created_us,
        updated_us=head.updated_us,
        order=head.order,
        version=head.version + 1,
        deleted=True,
    )


_log = logger("storage")
