"""Conversations: made, read and changed. ``messages`` has what is in them, ``removals`` how they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from serve_app.domain.conversation import Conversation, SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.errors import Conflict, NotFound
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.documents import Head
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.layout import Partition
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions, rounds
from serve_app.storage.cosmos.shares import prompt_document
from serve_app.storage.pages import conversation_cursor
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.rules import stale_etag, to_us

_AT_ONCE = 8
"""Conversations changed at once by a call for all of a user."""


class Conversations:
    """Heads and their prompts."""

    def __init__(self, sessions: Sessions, inbox: Inbox, removals: Removals) -> None:
        self._sessions = sessions
        self._inbox = inbox
        self._removals = removals
        self._last_order = 0

    async def ensure(self, key: ConversationKey) -> Conversation:
        """A new one is listed when this returns, so that a call for all of a user's conversations leaves none out."""
        partition = layout.conversation_partition(key)
        found = await self._sessions.get(partition, layout.HEAD)
        if isinstance(found, Head) and not found.deleted:
            await self._inbox.list_new(partition)
            return await self.of(found)
        async with self._sessions.lock(partition):
            async for _ in rounds():
                found = await self._sessions.get(partition, layout.HEAD)
                if isinstance(found, Head) and not found.deleted:
                    await self._inbox.list_new(partition)
                    return await self.of(found)
                tombstone = found if isinstance(found, Head) else None
                if tombstone is not None and not tombstone.cleared:
                    await self._removals.clear(tombstone)
                    continue
                batch = Batch(partition, home=0)
                head = self._new_head(partition, after=0 if tombstone is None else tombstone.version)
                if tombstone is None:
                    batch.create(head)
                else:
                    batch.replace(msgspec.structs.replace(head, etag=tombstone.etag))
                try:
                    await self._sessions.write(batch)
                except Refused:
                    continue
                await self._inbox.list_new(partition)
                return await self.of(await self._sessions.head(partition, fresh=False))
        raise AssertionError

    async def get(self, key: ConversationKey) -> Conversation:
        """Raises NotFound."""
        return await self.of(await self._sessions.head(layout.conversation_partition(key)))

    async def of(self, head: Head) -> Conversation:
        return documents.conversation(head, await self._sessions.prompt(head))

    async def update(
        self,
        key: ConversationKey,
        *,
        title: str | None,
        archived: bool | None,
        session_prompt: SessionPrompt | None,
        if_untitled: bool,
        if_match: str | None,
    ) -> Conversation:
        """Raises NotFound, Conflict."""
        # A new title is no activity: the place in the listing stays.
        partition = layout.conversation_partition(key)
        perhaps_written = False
        async with self._sessions.lock(partition):
            async for _ in rounds():
                head = await self._sessions.head(partition)
                changed = head
                if title is not None and not (if_untitled and head.title is not None):
                    changed = msgspec.structs.replace(changed, title=title)
                if archived is not None:
                    changed = msgspec.structs.replace(changed, archived=archived)
                batch = Batch(partition, home=head.order)
                if session_prompt is not None:
                    json = documents.json_of(session_prompt)
                    fingerprint = documents.fingerprint(json)
                    if head.prompt != fingerprint:
                        changed = msgspec.structs.replace(changed, prompt=fingerprint)
                        batch.upsert(prompt_document(batch, json, fingerprint))
                is_stale = if_match is not None and if_match != documents.bare(head.etag)
                if is_stale and not (perhaps_written and changed == head):
                    raise stale_etag()
                if changed == head:
                    return await self.of(head)
                batch.replace(msgspec.structs.replace(changed, version=head.version + 1))
                try:
                    await self._sessions.write(batch)
                except Refused as refused:
                    # If it was, and another wrote since, the head has another etag by now and what we set.
                    perhaps_written = perhaps_written or refused.perhaps_written
                    continue
                return await self.of(await self._sessions.head(partition, fresh=False))
        raise AssertionError

    async def archive_all(self, principal: Principal) -> int:
        async def archive(key: ConversationKey) -> bool:
            head = await self._sessions.head(layout.conversation_partition(key))
            if head.archived:
                return False
            await self.update(
                key,
                title=None,
                archived=True,
                session_prompt=None,
                if_untitled=False,
                if_match=documents.bare(head.etag),
            )
            return True

        archived = 0
        async for keys in self._listed(principal, archived=False):
            archived += await _count(archive, keys)
        return archived

    async def delete_all(self, principal: Principal) -> int:
        async def delete(key: ConversationKey) -> bool:
            await self._removals.delete(key)
            return True

        deleted = 0
        for archived, unlisted in ((False, False), (True, False), (False, True)):
            async for keys in self._listed(principal, archived=archived, unlisted=unlisted):
                deleted += await _count(delete, keys)
        return deleted

    async def _listed(
        self, principal: Principal, *, archived: bool, unlisted: bool = False
    ) -> AsyncIterator[list[ConversationKey]]:
        """The user's conversations, page by page; those that leave the list meanwhile move no other."""
        cursor: str | None = None
        while True:
            after = conversation_cursor(cursor, archived=archived)
            page = await self._inbox.page(principal, archived=archived, after=after, limit=MAX_PAGE, unlisted=unlisted)
            yield [conversation.key for conversation in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return

    def _new_head(self, partition: Partition, *, after: int) -> Head:
        """Its order and version are beyond ``after``, the version of what it takes the place of, whatever the clock says."""
        now_us = to_us(self._sessions.clock())
        self._last_order = order = max(self._last_order + 1, now_us, after + 1)
        tenant_id, conversation_id = partition
        return Head(
            id=layout.HEAD,
            tenant_id=tenant_id,
            conversation_id=conversation_id,
            created_us=now_us,
            updated_us=now_us,
            order=order,
            version=order,
        )


async def _count(change: Callable[[ConversationKey], Awaitable[bool]], keys: list[ConversationKey]) -> int:
    """How many conversations ``change`` has changed. One that is gone by now, or was changed by somebody else, is left."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def run(key: ConversationKey) -> bool:
        async with room:
            try:
                return await change(key)
            except (NotFound, Conflict):
                return False

    return sum(await asyncio.gather(*(run(key) for key in keys)))
