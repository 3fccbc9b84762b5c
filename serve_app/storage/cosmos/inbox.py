"""The list of a user's conversations: one row for each, read in one query.

A row shows the version of the head that it was made from and is never written over by an older one. The row of a new
conversation is written before anybody is told of it. From then on the replica that wrote a head writes its row behind, for
several writes of a while only once; before a user's list is read, those of that user that wait here are written. What a
crash takes with it, the projection makes up for from the heads themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct, field

from serve_app.domain.conversation import Conversation, Page
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.errors import ParleyError
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import Head, Json
from serve_app.storage.cosmos.layout import INBOX, Partition, conversation_of, turn_key
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.recent import Locks, Recent
from serve_app.storage.pages import ConversationCursor, encode_cursor
from serve_app.storage.rules import datetime_of
from serve_app.telemetry import logger

UNLISTED = 2
"""Where rows of conversations are that no list shows: beyond 0 and 1, which are the archived's and the others'."""

_AT_ONCE = 16
_KNOWN = 50_000
_ROUNDS = 8


class Row(Struct, frozen=True, kw_only=True, rename="camel"):
    """A conversation as its user's list shows it. ``sort`` orders the rows: the archived apart, by activity, by age."""

    id: str
    tenant_id: str
    user_id: str
    sort: str
    version: int
    title: str | None
    archived: bool
    created_us: int
    updated_us: int
    order: int
    message_count: int
    active_turn_id: str | None
    head_etag: str
    etag: str = field(default="", name="_etag")

    @classmethod
    def of(cls, head: Head) -> Row:
        key = conversation_of(head.partition)
        return cls(
            id=key.conversation_id,
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            sort=sort_key(int(head.archived) if key.listed else UNLISTED, head.updated_us, head.order),
            version=head.version,
            title=head.title,
            archived=head.archived,
            created_us=head.created_us,
            updated_us=head.updated_us,
            order=head.order,
            message_count=head.message_count,
            active_turn_id=turn_key(head.partition, head.open[0]).turn_id if head.open else None,
            head_etag=head.etag,
        )

    @property
    def partition(self) -> Partition:
        return self.tenant_id, self.user_id

    @property
    def conversation(self) -> Conversation:
        return Conversation(
            key=ConversationKey(tenant_id=self.tenant_id, user_id=self.user_id, conversation_id=self.id),
            created_at=datetime_of(self.created_us),
            updated_at=datetime_of(self.updated_us),
            title=self.title,
            archived=self.archived,
            message_count=self.message_count,
            active_turn_id=self.active_turn_id,
            etag=self.head_etag,
        )

    def json(self) -> Json:
        json: Json = msgspec.to_builtins(self)
        json.pop("_etag", None)
        return json


def sort_key(shelf: int, updated_us: int, order: int) -> str:
    return f"{shelf}-{updated_us:020d}-{order:020d}"


class Inbox:
    """The rows. ``read_head`` gives a conversation's head as it is now, None for none; ``delay_s``: how long rows may wait;
    ``passing_s``: how long after its last write the row of a conversation that passes expires."""

    def __init__(
        self,
        connection: Connection,
        read_head: Callable[[Partition], Awaitable[Head | None]],
        *,
        delay_s: float,
        passing_s: int,
    ) -> None:
        self._connection = connection
        self._read_head = read_head
        self._delay_s = delay_s
        self._passing_s = passing_s
        self._waiting: dict[Partition, tuple[Head, bool]] = {}
        self._written: Recent[Partition, int] = Recent(_KNOWN)
        self._locks = Locks()
        self._timer: asyncio.Task[None] | None = None

    def note(self, head: Head, made: bool) -> None:
        """A head has been written. ``made``: its conversation is new, so there is no row yet."""
        partition = head.partition
        if head.deleted:
            self._waiting.pop(partition, None)
            return
        known = self._waiting.get(partition)
        if known is not None and known[0].version > head.version:
            return
        self._waiting[partition] = head, made or (known is not None and known[1])
        if self._timer is None or self._timer.done():
            # In a fresh context: the request that this comes from must not take it along when it ends.
            self._timer = asyncio.create_task(self._later(), context=contextvars.Context())

    async def list_new(self, partition: Partition) -> None:
        """Writes the row of a conversation that was made here, if it is still to come. Raises where it cannot be written."""
        waiting = self._waiting.get(partition)
        if waiting is not None and waiting[1]:
            await self._write_waiting(partition)

    def shows(self, head: Head) -> bool:
        """Whether this replica has written the row of a head, or is going to."""
        waiting = self._waiting.get(head.partition)
        if waiting is not None and waiting[0].version >= head.version:
            return True
        return (self._written.get(head.partition) or 0) >= head.version

    async def page(
        self,
        principal: Principal,
        *,
        archived: bool,
        after: ConversationCursor | None,
        limit: int,
        unlisted: bool = False,
    ) -> Page[Conversation]:
        """``unlisted``: those that are in no list, instead."""
        await self.flush(principal)
        shelf = UNLISTED if unlisted else int(archived)
        most = f"{shelf}-~"
        if after is not None:
            most = sort_key(shelf, after.updated_us, after.order)
        found = await self._connection.query(
            INBOX,
            (principal.tenant_id, principal.user_id),
            "c.sort > @least AND c.sort < @most",
            {"@least": f"{shelf}-", "@most": most},
            order="sort DESC",
            limit=limit + 1,
        )
        rows = [msgspec.convert(item, Row) for item in found]
        more = None
        if len(rows) > limit:
            last = rows[limit - 1]
            more = encode_cursor(ConversationCursor(archived=archived, updated_us=last.updated_us, order=last.order))
        return Page(items=tuple(row.conversation for row in rows[:limit]), next_cursor=more)

    async def flush(self, principal: Principal | None = None) -> None:
        """Writes the rows that wait, all or one user's. May raise a retryable error; what is left waits on."""
        due = [
            partition
            for partition in self._waiting
            if principal is None or _is_of(conversation_of(partition), principal)
        ]
        room = asyncio.Semaphore(_AT_ONCE)

        async def write(partition: Partition) -> None:
            async with room:
                await self._write_waiting(partition)

        done = await asyncio.gather(*(write(partition) for partition in due), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure

    async def put(self, head: Head, *, made: bool = False) -> None:
        """Sees that the row shows this head or a later one."""
        row = Row.of(head)
        create = Operation("create", row.id, row.json())
        if conversation_of(head.partition).passing:
            create = create.expiring(self._passing_s)
        values = {name: value for name, value in row.json().items() if name not in ("id", "tenantId", "userId")}
        # One patch may set ten fields, and these are ten. All of them: the row may be that of a predecessor of the same id.
        sets: list[Json] = [{"op": "set", "path": f"/{name}", "value": value} for name, value in values.items()]
        patch = Operation("patch", row.id, sets, condition=f"FROM c WHERE c.version < {row.version}")
        for _ in range(_ROUNDS):
            try:
                await self._connection.write(INBOX, row.partition, [create if made else patch])
            except Refused as refused:
                match refused.status:
                    case 409:
                        made = False  # there is a row
                        continue
                    case 404:
                        # A row that has never been, or of a conversation that has been deleted.
                        now = await self._read_head(head.partition)
                        if now is None or now.order != head.order:
                            return
                        made = True
                        continue
            self._written.put(head.partition, row.version)  # it, or a later one
            return

    async def repair(self, head: Head) -> None:
        """Writes the row of a head if it is missing or older."""
        if self.shows(head):
            return
        key = conversation_of(head.partition)
        found = await self._connection.read(INBOX, (key.tenant_id, key.user_id), key.conversation_id)
        if found is None or found["version"] < head.version:
            await self.put(head)
        else:
            self._written.put(head.partition, found["version"])

    async def delete(self, head: Head) -> None:
        """Removes the row of a conversation that has been deleted, unless one was made again under its id."""
        partition = head.partition
        key = conversation_of(partition)
        async with self._locks.of(partition):
            self._waiting.pop(partition, None)
            self._written.drop(partition)
            at = key.tenant_id, key.user_id
            for _ in range(_ROUNDS):
                found = await self._connection.read(INBOX, at, key.conversation_id)
                if found is None or found["order"] != head.order:
                    return
                operation = Operation("delete", key.conversation_id, etag=str(found["_etag"]))
                try:
                    await self._connection.write(INBOX, at, [operation])
                except Refused:
                    continue
                return

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
        await self._try_to_flush()

    async def _write_waiting(self, partition: Partition) -> None:
        async with self._locks.of(partition):
            waiting = self._waiting.get(partition)
            if waiting is None:
                return
            await self.put(waiting[0], made=waiting[1])
            now = self._waiting.get(partition)
            if now is waiting:
                del self._waiting[partition]
            elif now is not None:
                self._waiting[partition] = now[0], False

    async def _later(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._delay_s)
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush()
        except ParleyError as error:
            _log.warning("rows of the inbox not written yet", rows=len(self._waiting), reason=str(error))


def _is_of(key: ConversationKey, principal: Principal) -> bool:
    return (key.tenant_id, key.user_id) == (principal.tenant_id, principal.user_id)


_log = logger("storage")
