"""The store port on Cosmos DB, put together: each call under one deadline, done by the module of its noun."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path

from azure.core.credentials_async import AsyncTokenCredential

from serve_app.domain.conversation import Conversation, Message, Page, Reaction, SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.domain.turns import (
    AcceptedTurn,
    AppendReply,
    AppendTurn,
    EventPage,
    NewTurn,
    OnBusy,
    Owner,
    Turn,
    TurnClaim,
)
from serve_app.domain.usage import Grouping, UsageRow, UsageSums
from serve_app.errors import ConfigError, ParleyError
from serve_app.settings import AzureSettings, StoreSettings, UsageSettings
from serve_app.storage.cosmos import layout
from serve_app.storage.cosmos.acceptance import Acceptance
from serve_app.storage.cosmos.appends import Appends
from serve_app.storage.cosmos.batch import PASSING_BODIES
from serve_app.storage.cosmos.bodies import BodyStore
from serve_app.storage.cosmos.charges import OnCharge
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.clock import ServerClock
from serve_app.storage.cosmos.conversations import Conversations
from serve_app.storage.cosmos.documents import Head
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.journal import FileJournal
from serve_app.storage.cosmos.layout import Partition
from serve_app.storage.cosmos.lease import RENEW_S
from serve_app.storage.cosmos.messages import Messages
from serve_app.storage.cosmos.projection import Projection
from serve_app.storage.cosmos.records import Records
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions
from serve_app.storage.cosmos.turns import Turns
from serve_app.storage.cosmos.usage import UsageRow as KeptRow
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.storage.cosmos.usage_sums import UsageDays
from serve_app.storage.pages import (
    MAX_EVENTS,
    bounded_limit,
    conversation_cursor,
    message_cursor,
    record_cursor,
    sums_cursor,
    usage_cursor,
)
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.rules import RETURN_GRACE_S
from serve_app.telemetry import logger

CATCH_UP_EVERY_S = 1.0
"""How often the change feed is read at most."""
PASSES_LATER_S = 86_400
"""How long after its log a conversation goes that passes: later than any turn of it could still be under way."""
_MANY = 8
"""How many times as long a call for all conversations of a user may take."""


class CosmosStore:
    """The store port on one database. Made by :meth:`open`, let go by :meth:`close`.

    What is public beside the port is for the adapter's own other end, :mod:`serve_app.storage.cosmos.transfer`.
    """

    def __init__(
        self,
        connection: Connection,
        bodies: BodyStore,
        *,
        clock: Callable[[], float],
        retention_s: float,
        inbox_delay_s: float,
        usage: UsageRows,
        catch_up_every_s: float = CATCH_UP_EVERY_S,
        repair_after_s: float | None = None,
        grace_s: float = RETURN_GRACE_S,
        by_itself_s: float = RENEW_S,
    ) -> None:
        self._connection = connection
        self.retention_s = retention_s
        self._bodies = bodies
        self._is_checked = False
        self._closes: list[Callable[[], Awaitable[None]]] = []
        self._passing_s = passing_s = int(retention_s) + PASSES_LATER_S
        sessions = Sessions(connection, bodies, clock, passing_s=passing_s)
        self.sessions = sessions
        self.usage = usage
        self._days = UsageDays(connection, usage, clock)
        self._inbox = Inbox(connection, self._head, delay_s=inbox_delay_s, passing_s=passing_s)
        sessions.on_head = self._inbox.note
        self.removals = Removals(sessions, self._inbox)
        self.messages = Messages(sessions)
        self.turns = Turns(sessions, self.messages, usage, retention_s=retention_s)
        self._appends = Appends(sessions, self.turns, usage, retention_s=retention_s)
        self._acceptance = Acceptance(sessions, self.turns, self.messages)
        self._conversations = Conversations(sessions, self._inbox, self.removals)
        self._records = Records(connection)
        self._projection = Projection(
            connection,
            sessions,
            self.removals,
            self._inbox,
            usage,
            every_s=catch_up_every_s,
            patience_s=3 * inbox_delay_s if repair_after_s is None else repair_after_s,
            grace_s=grace_s,
            by_itself_s=by_itself_s,
        )

    @classmethod
    async def open(
        cls,
        settings: AzureSettings,
        credential: str | AsyncTokenCredential,
        bodies: BodyStore,
        *,
        limits: StoreSettings | None = None,
        usage: UsageSettings | None = None,
        data_dir: Path | None = None,
        clock: Callable[[], float] | None = None,
        on_charge: OnCharge | None = None,
        catch_up_every_s: float = CATCH_UP_EVERY_S,
        repair_after_s: float | None = None,
        grace_s: float = RETURN_GRACE_S,
        by_itself_s: float = RENEW_S,
    ) -> CosmosStore:
        """A store on the database that ``settings`` name. The first call connects; :meth:`check` says what is wrong.

        ``credential``: the account's key or an identity. ``data_dir``: where usage waits with ``buffer: local``. ``clock``
        gives Unix seconds; by default the database's own. The other times are those of :class:`Projection`. The store closes
        ``bodies``. Raises ConfigError.
        """
        if settings.cosmos_endpoint is None:
            raise ConfigError("Setting PARLEY_AZURE__COSMOS_ENDPOINT: PARLEY_STORE=azure needs it.")
        limits = limits or StoreSettings()
        usage = usage or UsageSettings()
        server = ServerClock()
        connection = Connection.open(
            settings.cosmos_endpoint,
            credential,
            settings.cosmos_database,
            request_timeout_s=settings.request_timeout_s,
            retry_s=settings.retry_s,
            observe=server.observe,
            on_charge=on_charge,
        )
        journal = FileJournal(data_dir / "usage") if usage.buffer == "local" and data_dir is not None else None
        rows = UsageRows(connection, flush_s=0.0 if usage.buffer == "off" else usage.flush_s, journal=journal)
        return cls(
            connection,
            bodies,
            clock=clock or server,
            retention_s=limits.event_retention_s,
            inbox_delay_s=settings.inbox_delay_s,
            usage=rows,
            catch_up_every_s=catch_up_every_s,
            repair_after_s=repair_after_s,
            grace_s=grace_s,
            by_itself_s=by_itself_s,
        )

    # Conversations

    async def ensure_conversation(self, key: ConversationKey) -> Conversation:
        async with self._connection.deadline():
            return await self._conversations.ensure(key)

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        async with self._connection.deadline():
            return await self._conversations.get(key)

    async def list_conversations(
        self, principal: Principal, *, archived: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Conversation]:
        after = conversation_cursor(cursor, archived=archived)
        limit = bounded_limit(limit)
        async with self._connection.deadline():
            return await self._inbox.page(principal, archived=archived, after=after, limit=limit)

    async def update_conversation(
        self,
        key: ConversationKey,
        *,
        title: str | None = None,
        archived: bool | None = None,
        session_prompt: SessionPrompt | None = None,
        if_untitled: bool = False,
        if_match: str | None = None,
        usage: UsageRow | None = None,
    ) -> Conversation:
        if usage is not None:  # first, and whatever becomes of the change: it has been consumed
            await self.add_usage([usage])
        async with self._connection.deadline():
            return await self._conversations.update(
                key,
                title=title,
                archived=archived,
                session_prompt=session_prompt,
                if_untitled=if_untitled,
                if_match=if_match,
            )

    async def delete_conversation(self, key: ConversationKey) -> None:
        async with self._connection.deadline(_MANY):
            await self.removals.delete(key)

    async def archive_all(self, principal: Principal) -> int:
        async with self._connection.deadline(_MANY):
            return await self._conversations.archive_all(principal)

    async def delete_all(self, principal: Principal) -> int:
        async with self._connection.deadline(_MANY):
            return await self._conversations.delete_all(principal)

    async def list_messages(
        self,
        key: ConversationKey,
        *,
        cursor: str | None = None,
        limit: int = 50,
        descending: bool = False,
        replaced: bool = False,
    ) -> Page[Message]:
        after = message_cursor(cursor, descending=descending)
        limit = bounded_limit(limit)
        async with self._connection.deadline():
            return await self.messages.page(
                layout.conversation_partition(key),
                after=after,
                limit=limit,
                descending=descending,
                replaced=replaced,
            )

    async def get_message(self, key: ConversationKey, message_id: str) -> Message:
        async with self._connection.deadline():
            return await self.messages.get(layout.conversation_partition(key), message_id)

    async def find_message(self, key: ConversationKey, client_id: str) -> Message:
        async with self._connection.deadline():
            return await self.messages.called(layout.conversation_partition(key), client_id)

    async def set_reaction(self, key: ConversationKey, message_id: str, reaction: Reaction | None) -> Message:
        async with self._connection.deadline():
            return await self.messages.react(layout.conversation_partition(key), message_id, reaction)

    # The turn log

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        self._projection.start()
        if turn.opens:  # in a transaction of its own: what a crash leaves is an empty conversation
            await self.ensure_conversation(turn.key.conversation)
        async with self._connection.deadline():
            return await self._acceptance.accept(turn, on_busy=on_busy, max_waiting=max_waiting)

    async def claim_turn(
        self,
        key: TurnKey,
        owner: Owner,
        *,
        lease_s: float,
        history_limit: int,
        dead: Sequence[str] = (),
        ahead: int = 0,
    ) -> TurnClaim:
        async with self._connection.deadline():
            return await self.turns.claim(
                key, owner, lease_s=lease_s, history_limit=min(history_limit, MAX_PAGE), dead=dead, ahead=ahead
            )

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        if not batch:
            return []
        async with self._connection.deadline():
            return await self._appends.append(batch)

    async def get_turn(self, key: TurnKey) -> Turn:
        async with self._connection.deadline():
            return await self.turns.get(key)

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        limit = bounded_limit(limit, MAX_EVENTS)
        async with self._connection.deadline():
            return await self.turns.read_events(key, after_seq=after_seq, limit=limit)

    async def request_cancel(self, key: TurnKey) -> Turn:
        async with self._connection.deadline():
            return await self.turns.request_cancel(key)

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        self._projection.start()
        async with self._connection.deadline(_MANY):
            return await self._projection.find_abandoned(limit=min(limit, MAX_EVENTS))

    # Records

    async def get_record(self, tenant_id: str, kind: str, record_id: str) -> Record:
        async with self._connection.deadline():
            return await self._records.get(tenant_id, kind, record_id)

    async def save_record(
        self, tenant_id: str, kind: str, record_id: str, body: bytes, *, if_match: str | None = None
    ) -> Record:
        async with self._connection.deadline():
            return await self._records.save(tenant_id, kind, record_id, body, if_match=if_match)

    async def delete_record(self, tenant_id: str, kind: str, record_id: str) -> None:
        async with self._connection.deadline():
            await self._records.delete(tenant_id, kind, record_id)

    async def list_records(
        self, tenant_id: str, kind: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Record]:
        after = record_cursor(cursor)
        limit = bounded_limit(limit)
        async with self._connection.deadline():
            return await self._records.page(tenant_id, kind, after=after, limit=limit)

    # Usage

    async def list_usage(
        self, tenant_id: str, day: date, *, cursor: str | None = None, limit: int = 50
    ) -> Page[UsageRow]:
        after = usage_cursor(cursor, day=day.isoformat())
        limit = bounded_limit(limit)
        async with self._connection.deadline():
            return await self.usage.page(tenant_id, day.isoformat(), after=after, limit=limit)

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        async with self._connection.deadline():
            await self.usage.add([KeptRow.of(row) for row in rows])

    async def sum_usage(
        self,
        tenant_id: str,
        first: date,
        last: date,
        by: Grouping,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> UsageSums:
        after = sums_cursor(cursor, by=by)
        limit = bounded_limit(limit)
        async with self._connection.deadline(_MANY):
            return await self._days.sums(tenant_id, first, last, by, user_id=user_id, after=after, limit=limit)

    # Health and upkeep

    async def check(self) -> None:
        async with self._connection.deadline():
            # All of it once; after that, whether the database answers.
            for container in (layout.SESSIONS,) if self._is_checked else layout.CONTAINERS:
                await self._connection.read(container, (layout.SYSTEM_TENANT, "check"), "check")
            if not self._is_checked:
                await self._bodies.check()
            self._is_checked = True

    async def prune_events(self, *, older_than_s: float, limit: int = 1000) -> int:  # noqa: ARG002 - the port's
        """Logs expire by themselves, and so do conversations that pass, but for their large bodies. A document that names one
        may have been written last as much later as a turn may be under way."""
        before = self.sessions.clock() - self._passing_s - PASSES_LATER_S
        await self._bodies.delete_older(PASSING_BODIES, before)
        return 0

    async def close(self) -> None:
        for close in (self._projection.close, self._inbox.close, self.usage.close):
            try:
                async with self._connection.deadline():
                    await close()
            except ParleyError as error:
                _log.warning("closed without all of it written", reason=str(error))
        await self._connection.close()
        await self._bodies.close()
        for let_go in self._closes:
            await let_go()

    def close_with_it(self, close: Callable[[], Awaitable[None]]) -> None:
        """Something else to let go of at the end."""
        self._closes.append(close)

    async def _head(self, partition: Partition) -> Head | None:
        found = await self.sessions.get(partition, layout.HEAD)
        return found if isinstance(found, Head) and not found.deleted else None


_log = logger("storage")
