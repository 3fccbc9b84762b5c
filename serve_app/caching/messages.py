"""The messages of a conversation, kept beside the store that has them.

Under ``messages:{tenant}:{user}:{conversation}`` are all messages shown, by position, put there by a read that returned all
of them. The question of an accepted turn and its answer are added where their positions follow from what is kept; a reaction
is changed in it; whatever else changes messages drops it.

Under ``messages:{tenant}:{user}`` is nothing but a version, which every entry of the user carries: deleting all conversations
of a user changes it, and with it goes every entry, also of conversations that nobody could have listed.

While a replica that writes cannot reach the cache, others may show what was kept before, at most until the entry's time has
passed. What cannot be read, because another version of this program has put it there, counts as nothing kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from serve_app.caching.entries import Change, Entries, value_of
from serve_app.caching.port import Cache, Held
from serve_app.domain.conversation import Message, Page, Reaction
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.domain.turns import AcceptedTurn, AppendReply, AppendTurn, NewTurn, OnBusy
from serve_app.errors import InvalidInput
from serve_app.storage.pages import PAGE_BYTES, MessageCursor, bounded_limit, encode_cursor, message_cursor
from serve_app.storage.port import Store
from serve_app.storage.rules import user_message

Messages = tuple[Message, ...]

OWNER_TTL_S = 86_400.0
"""How long a user's version is kept; without it the user's entries are good for nothing."""

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Messages] = msgspec.json.Decoder(Messages)


def cached_messages(store: Store, cache: Cache, *, ttl_s: float) -> Store:
    """``store`` with the messages of its conversations in ``cache``. Whoever closes it closes both."""
    return cast(Store, CachedMessages(store, cache, ttl_s=ttl_s))


def messages_key(key: ConversationKey) -> str:
    """Parts are quoted, so that no id reaches into another key."""
    return f"{owner_key(key.tenant_id, key.user_id)}:{quote(key.conversation_id, safe='')}"


def owner_key(tenant_id: str, user_id: str) -> str:
    return f"messages:{quote(tenant_id, safe='')}:{quote(user_id, safe='')}"


class CachedMessages:
    """The Store port around another store; what is not about messages is the other's own."""

    def __init__(self, store: Store, cache: Cache, *, ttl_s: float) -> None:
        self.store = store
        self._cache = cache
        self._entries = Entries(cache, ttl_s)
        self._owners = Entries(cache, OWNER_TTL_S)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def list_messages(
        self,
        key: ConversationKey,
        *,
        cursor: str | None = None,
        limit: int = 50,
        descending: bool = False,
        replaced: bool = False,
    ) -> Page[Message]:
        if replaced:
            return await self.store.list_messages(
                key, cursor=cursor, limit=limit, descending=descending, replaced=replaced
            )
        at = messages_key(key)
        held, owner = await self._cache.get_many((at, owner_key(key.tenant_id, key.user_id)))
        kept = _unpack(value_of(held), owner)
        if kept is not None:
            page = _page(kept, cursor=cursor, limit=limit, descending=descending)
            if page is not None:
                return page
        lease = version = None
        if cursor is None and kept is None:
            version = await self._owner_version(key, owner)
            if version is not None:
                lease = await self._lease(at, held)
        page = None
        try:
            page = await self.store.list_messages(key, cursor=cursor, limit=limit, descending=descending)
        finally:
            if version is not None and lease is not None:
                await self._entries.fill(at, lease, _whole(page, version, descending))
        return page

    async def _owner_version(self, key: ConversationKey, owner: Held | None) -> bytes | None:
        """What an entry of the user has to carry; None while all of the user's conversations are being deleted."""
        if owner is not None:
            return owner.version if value_of(owner) is not None else None
        return await self._owners.add(owner_key(key.tenant_id, key.user_id), b"")

    async def _lease(self, at: str, held: Held | None) -> bytes | None:
        if held is None:
            return await self._entries.lease(at)
        # A value that cannot be used is of another version of the user, or of this program.
        return None if value_of(held) is None else await self._entries.lease(at, instead_of=held.version)

    # Writes

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        change = await self._entries.change(messages_key(turn.key.conversation))
        try:
            accepted = await self.store.accept_turn(turn, on_busy=on_busy, max_waiting=max_waiting)
        except BaseException as error:
            await change.fail(error)
            raise
        await _settle(change, lambda messages: _asked(messages, turn, accepted))
        return accepted

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        finished = [share for share in batch if share.finish is not None]
        if not finished:  # nearly always: nothing of what is kept changes
            return await self.store.append(batch)
        keys = list({messages_key(share.key.conversation): None for share in finished})
        changes = await asyncio.gather(*(self._entries.change(key) for key in keys))
        try:
            replies = await self.store.append(batch)
        except BaseException as error:
            await asyncio.gather(*(change.fail(error) for change in changes))
            raise
        answered: dict[str, list[AppendTurn | None]] = {key: [] for key in keys}
        for share, reply in zip(batch, replies, strict=True):
            if share.finish is not None:
                answered[messages_key(share.key.conversation)].append(share if reply.status == "ok" else None)
        await asyncio.gather(
            *(
                _settle(change, partial(_answered, shares=answered[key]))
                for key, change in zip(keys, changes, strict=True)
            )
        )
        return replies

    async def set_reaction(self, key: ConversationKey, message_id: str, reaction: Reaction | None) -> Message:
        change = await self._entries.change(messages_key(key))
        try:
            message = await self.store.set_reaction(key, message_id, reaction)
        except BaseException as error:
            await change.fail(error)
            raise
        await _settle(change, lambda messages: _reacted(messages, message))
        return message

    async def delete_conversation(self, key: ConversationKey) -> None:
        change = await self._entries.change(messages_key(key))
        try:
            await self.store.delete_conversation(key)
        except BaseException as error:
            await change.fail(error)
            raise
        await change.settle(None)

    async def delete_all(self, principal: Principal) -> int:
        change = await self._owners.change(owner_key(principal.tenant_id, principal.user_id))
        try:
            deleted = await self.store.delete_all(principal)
        except BaseException as error:
            await change.fail(error)
            raise
        await change.settle(None)
        return deleted

    async def close(self) -> None:
        try:
            await self.store.close()
        finally:
            await self._cache.close()


# What is kept: a byte that says how long the user's version is, the version, the messages


def _pack(version: bytes, messages: Messages) -> bytes:
    return bytes((len(version),)) + version + _ENCODER.encode(messages)


def _split(value: bytes) -> tuple[bytes, Messages] | None:
    """The user's version and the messages; None for what another version of this program has kept in another way."""
    end = 1 + (value[0] if value else 0)
    try:
        return value[1:end], _DECODER.decode(value[end:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _unpack(value: bytes | None, owner: Held | None) -> Messages | None:
    """The messages; None where nothing is kept, or not for the version of the user that is there now."""
    if value is None or owner is None or value_of(owner) is None:
        return None
    found = _split(value)
    return found[1] if found is not None and found[0] == owner.version else None


def _whole(page: Page[Message] | None, version: bytes, descending: bool) -> bytes | None:
    """What is kept of a page that has all messages; None for any other."""
    if page is None or page.next_cursor is not None:
        return None
    packed = _pack(version, page.items[::-1] if descending else page.items)
    return packed if len(packed) <= PAGE_BYTES else None


async def _settle(change: Change, changed: Callable[[Messages], Messages | None]) -> None:
    """Keeps what a write has made of what was kept; ``changed`` returns None where it cannot know."""
    kept = None if change.base is None else _split(change.base)
    if kept is None:
        await change.settle(None)
        return
    version, before = kept
    messages = changed(before)
    await change.settle(None if messages is None else _pack(version, messages))


def _page(messages: Messages, *, cursor: str | None, limit: int, descending: bool) -> Page[Message] | None:
    """As a store would page them; None for a cursor that is the store's own to understand."""
    try:
        after = message_cursor(cursor, descending=descending)
    except InvalidInput:
        return None
    limit = bounded_limit(limit)
    if after is not None and descending:
        messages = tuple(message for message in messages if message.position < after.position)
    elif after is not None:
        messages = tuple(message for message in messages if message.position > after.position)
    if descending:
        messages = messages[::-1]
    if len(messages) <= limit:
        return Page(items=messages)
    more = MessageCursor(descending=descending, position=messages[limit - 1].position)
    return Page(items=messages[:limit], next_cursor=encode_cursor(more))


# What a write makes of the messages that are kept; None where that cannot be told from them


def _asked(messages: Messages, turn: NewTurn, accepted: AcceptedTurn) -> Messages | None:
    if not accepted.created:
        return messages
    if turn.replaces is not None or accepted.waits:
        return None
    # Where an answer is shown last, no position behind it has been given to anything.
    if messages and messages[-1].role != "assistant":
        return None
    position = messages[-1].position + 1 if messages else 1
    return (*messages, user_message(turn, position))


def _answered(messages: Messages, shares: Sequence[AppendTurn | None]) -> Messages | None:
    """``shares``: those that ended their turns; None for one that was lost."""
    for share in shares:
        if share is None or share.finish is None:
            return None
        answer = share.finish.message
        if any(message.message_id == answer.message_id for message in messages):
            continue  # it is the repetition of an append that had been made
        # An answer has its place right behind the question its turn has asked.
        asked = next((m for m in messages if m.turn_id == share.key.turn_id and m.role == "user"), None)
        if asked is None:
            return None
        answered = (*messages, replace(answer, position=asked.position + 1))
        messages = tuple(sorted(answered, key=lambda message: message.position))
    return messages


def _reacted(messages: Messages, message: Message) -> Messages | None:
    if message.replaced_by is not None:
        return messages
    if all(kept.message_id != message.message_id for kept in messages):
        return None
    return tuple(message if kept.message_id == message.message_id else kept for kept in messages)
