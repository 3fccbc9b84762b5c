"""The use cases of a chat, the same for every transport: open a session, send, resume, cancel.

Routers and sockets decode and encode; what happens is here. An accepted turn goes on whatever becomes of its client, so
accepting and starting run in a task of their own that a disconnect does not cancel.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from msgspec.structs import replace

from serve_app.domain.conversation import Conversation
from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import CONVERSATION_ID, ConversationKey, TurnKey, new_id
from serve_app.domain.priority import Priority
from serve_app.domain.prompts import PromptRequest
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import AcceptedTurn, NewTurn, Query, Turn
from serve_app.errors import Conflict, Gone, InvalidInput, NotFound, NotPermitted, Overloaded, ParleyError
from serve_app.files.attachments import check_attachments
from serve_app.ingress.answers import Answers
from serve_app.ingress.catalog import CachedCatalog
from serve_app.ingress.services import IngressServices
from serve_app.ingress.tail import PAGE_RECORDS, TurnTail
from serve_app.patience import patiently
from serve_app.storage.repeats import accepted_before
from serve_app.storage.rules import busy_conversation, first_event
from serve_app.telemetry import logger
from serve_app.turns.port import LiveTail
from serve_app.wire.conversations import message_path

HINT_TIMEOUT_S = 2.0
STOPPING_WAIT_S = 3.0
"""How long an input waits for a turn that is being stopped."""
STOPPING_POLL_S = 0.05

_log = logger("ingress.chat")


@dataclass(frozen=True)
class Session:
    """A client attached to a conversation, acting in the roles it asked for."""

    principal: Principal
    conversation: Conversation
    tools: ToolSet
    active_turn: Turn | None


@dataclass(frozen=True)
class Sent:
    """An accepted input and the tail that shows its turn. ``model_id`` is what the turn will ask for, if known."""

    turn: Turn
    created: bool
    tail: TurnTail
    model_id: str | None


class ChatService:
    """One per Ingress replica. Every method raises ParleyError only."""

    def __init__(self, services: IngressServices) -> None:
        self._services = services
        self._settings = services.settings
        self.catalog = CachedCatalog(services.models)
        self.answers = Answers(services)
        self._starting: set[asyncio.Task[tuple[Turn, bool, LiveTail | None]]] = set()
        self._hints: set[asyncio.Task[None]] = set()
        self._draining = False
        self._tails: weakref.WeakSet[TurnTail] = weakref.WeakSet()

    def drain(self) -> None:
        """Takes no more input from now on, and ends every tail with an error that says to come back. Idempotent."""
        self._draining = True
        for tail in list(self._tails):
            tail.interrupt()

    async def open_session(
        self, principal: Principal, session_id: str | None = None, role: str | None = None
    ) -> Session:
        """Attaches to a conversation, made if need be, and renews the prompt kept with it where roles or tools changed.

        Raises InvalidInput for an id no conversation can have.
        """
        acting = principal.narrowed_to(role.lower() if role is not None else None)
        conversation, tools = await asyncio.gather(
            self.ensure_conversation(acting, session_id), patiently(lambda: self._services.tools.tools_for(acting))
        )
        conversation = await self._keep_prompt(acting, conversation, tools)
        return Session(
            principal=acting, conversation=conversation, tools=tools, active_turn=await self._active_turn(conversation)
        )

    async def ensure_conversation(self, principal: Principal, conversation_id: str | None) -> Conversation:
        """The caller's conversation of that id, made if there is none."""
        chosen = new_id("c_") if conversation_id is None else conversation_id
        if not CONVERSATION_ID.fullmatch(chosen):
            raise InvalidInput("A conversation id is 1 to 64 letters, digits, _ or -.")
        key = ConversationKey.of(principal, chosen)
        if key.trial:
            raise InvalidInput("A conversation id of this form is an evaluation's; choose another one.")
        return await self._services.store.ensure_conversation(key)

    async def send(
        self,
        principal: Principal,
        conversation: Conversation | str | None,
        query: Query,
        *,
        client_turn_id: str | None = None,
        client_message_id: str | None = None,
        replaces: str | None = None,
        priority: Priority = "live",
        request_id: str = "",
        title_wait_s: float = 0.0,
        heartbeat_s: float | None = None,
        opens: bool = False,
        on_left: Callable[[Turn], None] | None = None,
    ) -> Sent:
        """Accepts an input and runs its turn; the tail shows it from event 1.

        An id instead of a conversation, or None for a new one, makes the conversation where there is none, once the input
        has been found good. An input accepted before gives its turn again, and starts it where nobody has yet.
        ``title_wait_s`` counts for conversations without a title only. ``replaces``: see ``NewTurn``. ``opens``: the conversation
        of that id is made as the turn is accepted, so that the store is asked once. ``on_left`` is given the turn, once there is
        one, where the caller was cancelled while it waited for it.
        Raises InvalidInput, NotPermitted for a tool, Conflict while another turn runs (unless ``conversation.on_busy`` says
        otherwise) or for a reused ``client_turn_id``, QuotaExceeded where too many wait, Overloaded while this replica
        drains. Where no Turns replica can be reached the turn stands, and is picked up later.
        """
        if self._draining:
            raise Overloaded("This server is being replaced; send it again.", None, 1.0)
        try:
            model_id = await self._check(principal, query)
        except ParleyError as error:
            # What was good when it was accepted may have gone since: a file, a tool, a model.
            if client_turn_id is None or isinstance(error, InvalidInput):
                raise
            if not await self._was_accepted(principal, conversation, query, client_turn_id):
                raise
            model_id = None
        if opens and isinstance(conversation, str):
            where, conversation = ConversationKey.of(principal, conversation), None
        else:
            if not isinstance(conversation, Conversation):
                conversation = await self.ensure_conversation(principal, conversation)
            where = conversation.key
        now = time.time()
        new_turn = NewTurn(
            key=TurnKey.new(where),
            principal=principal,
            query=query,
            created_at=datetime.fromtimestamp(now, UTC),
            deadline=now + self._settings.turn.timeout_s,
            client_turn_id=client_turn_id,
            client_message_id=client_message_id,
            replaces=replaces,
            request_id=request_id,
            priority=priority,
            opens=opens,
        )
        # A fresh context, because a server may cancel what belongs to a request along with it.
        start = asyncio.create_task(self._start(new_turn), context=contextvars.Context())
        self._starting.add(start)
        start.add_done_callback(self._starting.discard)
        try:
            turn, created, live = await asyncio.shield(start)
        except asyncio.CancelledError:
            start.add_done_callback(partial(_let_go, on_left))
            raise
        tail = self._tail(
            turn,
            # Event 1 of a turn that starts now is known without reading it back.
            first=(first_event(replace(new_turn, key=turn.key, client_turn_id=turn.client_turn_id)),)
            if created or live is not None
            else (),
            live=live,
            title_wait_s=self._title_wait(conversation, title_wait_s),
            heartbeat_s=heartbeat_s,
        )
        return Sent(turn=turn, created=created, tail=tail, model_id=model_id)

    async def resume(
        self,
        principal: Principal,
        turn_id: str,
        after_seq: int = 0,
        *,
        conversation: Conversation | None = None,
        title_wait_s: float = 0.0,
        heartbeat_s: float | None = None,
    ) -> TurnTail:
        """The caller's turn after ``after_seq``, then live. Raises NotFound, Gone, or InvalidInput for a future cursor."""
        key = TurnKey.of(principal, turn_id)
        try:
            page = await self._services.store.read_events(key, after_seq=after_seq, limit=PAGE_RECORDS)
        except Gone as error:
            where = message_path(key.conversation.conversation_id, key.assistant_message_id)
            raise Gone(f"{error.message} The answer is at {where}.", None, None, [{"message_url": where}]) from None
        if not page.records and after_seq > max(page.turn.last_seq, page.turn.shown_seq):
            raise InvalidInput("after_seq: the turn has no event of that number.")
        return self._tail(
            page.turn,
            after_seq=after_seq,
            first=page.records,
            title_wait_s=self._title_wait(conversation, title_wait_s),
            heartbeat_s=heartbeat_s,
        )

    async def title_of(self, key: ConversationKey) -> str | None:
        """The conversation's title, if it has one by now. Raises NotFound."""
        return (await self._services.store.get_conversation(key)).title

    async def cancel(self, principal: Principal, turn_id: str) -> Turn:
        """Asks the turn to stop; one that has ended stays as it is. Raises NotFound."""
        turn = await self._services.store.request_cancel(TurnKey.of(principal, turn_id))
        if not turn.ended:
            await self._hint_cancel(turn)
        return turn

    async def _hint_cancel(self, turn: Turn) -> None:
        """A cancel of the turn has been stored: lets its owner know, or finds one that ends it."""
        if turn.owner is None:
            self._services.turns.start(turn.key)
            return
        try:
            async with asyncio.timeout(HINT_TIMEOUT_S):
                await self._services.turns.hint_cancel(turn.key, turn.owner)
        except (ParleyError, TimeoutError):
            # Only a hint: the owner hears of it with its next append.
            _log.info("cancel_hint_lost", turn_id=turn.key.turn_id)

    async def cancel_active(self, principal: Principal, conversation_id: str) -> Turn | None:
        """Cancels the turn the conversation runs, if any. Raises NotFound."""
        conversation = await self._services.store.get_conversation(ConversationKey.of(principal, conversation_id))
        if conversation.active_turn_id is None:
            return None
        return await self.cancel(principal, conversation.active_turn_id)

    async def _check(self, principal: Principal, query: Query) -> str | None:
        if query.given is not None:
            return query.model_id  # whoever read the request has checked it
        if not query.content.strip():
            raise InvalidInput("content: must not be empty.")
        if len(query.content) > self._settings.limits.query_chars:
            raise InvalidInput(f"content: must be at most {self._settings.limits.query_chars} characters long.")
        await check_attachments(self._services.files, principal, query.attachments)
        if query.tool_id is not None:
            offered = await patiently(lambda: self._services.tools.tools_for(principal))
            if not any(query.tool_id in {tool.name, tool.server} for tool in offered.tools):
                raise NotPermitted(f"tool_id: you may not use {query.tool_id!r}, or it is not available.")
        return await self._model(principal, query)

    async def _model(self, principal: Principal, query: Query) -> str | None:
        """The query's model, else the one its tenant has chosen. One that the tenant has chosen and that has gone since is the
        gateway's to refuse: the user can do nothing about it.
        """
        tenants = principal.terms.choices.model_id
        return tenants if query.model_id is None and tenants is not None else await self.catalog.choose(query.model_id)

    async def _was_accepted(
        self, principal: Principal, conversation: Conversation | str | None, query: Query, client_turn_id: str
    ) -> bool:
        """Whether this input has a turn."""
        if isinstance(conversation, Conversation):
            where = conversation.key
        elif conversation is not None and CONVERSATION_ID.fullmatch(conversation):
            where = ConversationKey.of(principal, conversation)
        else:
            return False
        repeated = NewTurn(
            key=TurnKey.new(where),
            principal=principal,
            query=query,
            created_at=datetime.now(UTC),
            deadline=time.time(),
            client_turn_id=client_turn_id,
        )
        return await accepted_before(self._services.store, repeated) is not None

    async def _start(self, new_turn: NewTurn) -> tuple[Turn, bool, LiveTail | None]:
        accepted = await self._accept(new_turn)
        turn = accepted.turn
        for interrupted in accepted.interrupted:
            hint = asyncio.create_task(self._hint_cancel(interrupted))
            self._hints.add(hint)
            hint.add_done_callback(self._hints.discard)
        if accepted.waits or (not accepted.created and turn.state != "accepted"):
            return turn, accepted.created, None
        try:
            # One that is still only accepted may have been left by a sender that died. The claim admits one owner.
            live = await self._services.turns.run(turn.key)
        except ParleyError as error:
            _log.warning("turn_not_started", turn_id=turn.key.turn_id, reason=error.message)
            return turn, accepted.created, None
        return turn, accepted.created, live

    async def _accept(self, new_turn: NewTurn) -> AcceptedTurn:
        settings = self._settings.conversation
        while True:
            try:
                return await self._services.store.accept_turn(
                    new_turn, on_busy=settings.on_busy, max_waiting=settings.max_waiting
                )
            except Conflict as error:
                if error.message != busy_conversation().message:
                    raise
                if not await self.has_stopped(new_turn.key.conversation):
                    raise

    async def has_stopped(self, key: ConversationKey) -> bool:
        """Waits for a turn that is being stopped: who sends the next message at once need not know that it takes a moment.

        False where a turn runs that nobody has stopped, or that takes too long to end.
        """
        give_up = time.monotonic() + STOPPING_WAIT_S
        while True:
            active = await self._active_turn(await self._services.store.get_conversation(key))
            if active is None:
                return True
            if not active.cancel_requested or time.monotonic() >= give_up:
                return False
            await asyncio.sleep(STOPPING_POLL_S)

    async def _keep_prompt(self, principal: Principal, conversation: Conversation, tools: ToolSet) -> Conversation:
        """Makes the session's prompt at once, so that what cannot work is said before the first query."""
        request = PromptRequest(principal=principal, query="", tools=tools.tools, kept=conversation.session_prompt)
        prompt = await patiently(lambda: self._services.prompts.build(request))
        if prompt.session_prompt == conversation.session_prompt:
            return conversation
        return await self._services.store.update_conversation(conversation.key, session_prompt=prompt.session_prompt)

    async def _active_turn(self, conversation: Conversation) -> Turn | None:
        if conversation.active_turn_id is None:
            return None
        try:
            turn = await self._services.store.get_turn(
                TurnKey(conversation=conversation.key, turn_id=conversation.active_turn_id)
            )
        except NotFound:
            return None
        return None if turn.ended else turn

    def _title_wait(self, conversation: Conversation | None, title_wait_s: float) -> float:
        untitled = conversation is not None and conversation.title is None
        return title_wait_s if untitled and self._settings.conversation.titles else 0.0

    def _tail(
        self,
        turn: Turn,
        *,
        after_seq: int = 0,
        first: Sequence[EventRecord] = (),
        live: LiveTail | None = None,
        title_wait_s: float = 0.0,
        heartbeat_s: float | None = None,
    ) -> TurnTail:
        tail = TurnTail(
            self._services.store,
            self._services.turns,
            turn,
            after_seq=after_seq,
            first=first,
            live=live,
            title_wait_s=title_wait_s,
            heartbeat_s=heartbeat_s,
            max_items=self._settings.limits.tail_items,
        )
        self._tails.add(tail)
        return tail


def _let_go(on_left: Callable[[Turn], None] | None, start: asyncio.Task[tuple[Turn, bool, LiveTail | None]]) -> None:
    """Closes the tail of a turn whose client left while it was being started."""
    if start.cancelled() or start.exception() is not None:
        return
    turn, _, live = start.result()
    if on_left is not None:
        on_left(turn)
    if live is not None:
        closing = asyncio.ensure_future(live.aclose())
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)


_CLOSING: set[asyncio.Future[None]] = set()
