"""The use cases of the OpenAI-compatible routes: one request is one durable turn, in a conversation of its own.

    request ─► model name ─► accept (by idempotency key, if there is one) ─► tail ─► answer
                                                                               └─ its client leaves ─► cancelled

Nobody can resume a chat completion, so a client that leaves one has no use for its turn: it is cancelled, as that of a response
is which does not run in the background.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from fastapi import Request

from serve_app.domain.conversation import Message
from serve_app.domain.events import EventRecord, TurnFailed
from serve_app.domain.generation import ModelInfo
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.priority import Priority
from serve_app.domain.turns import GivenPrompt, Query, Turn
from serve_app.errors import Conflict, NotFound, ParleyError
from serve_app.ingress.chat import ChatService, Sent
from serve_app.ingress.services import IngressServices
from serve_app.ingress.tail import Shown
from serve_app.storage.rules import other_query
from serve_app.telemetry import logger
from serve_app.wire.openai_body import shown_content
from serve_app.wire.openai_chat import Completion, failure_of
from serve_app.wire.openai_ids import conversation_id
from serve_app.wire.openai_response import Ended

ASSISTANT = "assistant/"
"""Begins the model name that means a prompt of ours, with its tools."""
HEARTBEAT_S = 10.0
"""How long a stream is silent before it says that it is still there, and how long its headers wait for its first text: what fails
before is told by its status, which SDKs act on."""
MAX_ATTEMPTS = 8
"""Turns that one idempotency key may have, all but the last failed or cancelled."""
NAMES_FRESH_S = 30.0
MAX_NAMES = 1_000

T = TypeVar("T")

_log = logger("ingress.openai")


class ClientLeft(Exception):
    """Whoever asked is gone; nobody reads an answer."""


class OpenAiTurns:
    """One per Ingress replica. Methods raise ParleyError."""

    def __init__(self, services: IngressServices, chat: ChatService) -> None:
        self._services = services
        self._chat = chat
        self._names: dict[tuple[str, tuple[str, ...]], tuple[float, tuple[str, ...]]] = {}
        self._readers: Counter[str] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()

    async def models(self, caller: Principal) -> tuple[tuple[ModelInfo, ...], tuple[str, ...]]:
        """The models that can be asked for, and the assistants, by their prompts' names."""
        catalog = await self._chat.catalog.get()
        return catalog.models, await self._prompts(caller)

    async def resolve(self, caller: Principal, name: str) -> tuple[str | None, str | None]:
        """Model and prompt that a request's ``model`` names. Raises NotFound."""
        if name.startswith(ASSISTANT):
            prompt = name.removeprefix(ASSISTANT)
            if prompt not in await self._prompts(caller):
                raise no_model(name)
            return None, prompt
        try:
            catalog = await self._chat.catalog.get()
        except ParleyError:
            return name, None  # the gateway itself refuses unknown models
        if not catalog.any_model and not any(name in {model.model_id, *model.aliases} for model in catalog.models):
            raise no_model(name)
        return name, None

    async def send(
        self,
        caller: Principal,
        given: GivenPrompt,
        model_id: str | None,
        *,
        key: str | None,
        priority: Priority,
        request_id: str,
        background: bool = False,
    ) -> Sent:
        """Accepts a request. One that came before with the same key gives its turn again, unless that has failed or was
        cancelled: then another attempt is made. Raises Conflict for a key that was used with another request.

        Whoever calls is a reader of the turn, until ``done``; one that is cancelled meanwhile is one that has left.
        """
        query = Query(content=shown_content(given.messages), model_id=model_id, given=given)
        where = conversation_id(key)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                sent = await self._chat.send(
                    caller,
                    where,
                    query,
                    client_turn_id=key if key is None or attempt == 1 else f"{key}#{attempt}",
                    priority=priority,
                    request_id=request_id,
                    heartbeat_s=HEARTBEAT_S,
                    opens=True,
                    on_left=None if background else self._left_unread,
                )
            except Conflict as error:
                if error.message != other_query().message:
                    raise
                raise Conflict("This Idempotency-Key was used before with another request.") from None
            if sent.created or not _given_up(sent.turn):
                self.joined(sent)
                return sent
            await sent.tail.aclose()
        raise Conflict("Every attempt with this Idempotency-Key has failed; use a new one.")

    def joined(self, sent: Sent) -> None:
        """One more reads the turn, until ``done``."""
        self._readers[sent.turn.key.turn_id] += 1

    async def answered(self, request: Request, sent: Sent, completion: Completion) -> None:
        """Takes the whole answer into ``completion``, and is done with it. Raises what the turn failed with, and ClientLeft."""

        async def gather() -> None:
            async for batch in sent.tail:
                completion.take(batch)

        try:
            await while_there(request, gather())
        finally:
            await self.done(sent)
        if completion.failure is not None:
            raise completion.failure

    async def begun(
        self, request: Request, sent: Sent, batches: AsyncIterator[list[Shown]], completion: Completion
    ) -> list[Shown]:
        """What an answer shows first. Is done with it where it raises: what the turn failed with, and ClientLeft."""
        try:
            shown = await while_there(request, first_shown(batches))
            completion.take(shown)
            if completion.failure is not None:
                raise completion.failure
        except BaseException:
            await self.done(sent)
            raise
        return shown

    async def done(self, sent: Sent, *, background: bool = False) -> None:
        """Whoever read the turn reads no more; it is cancelled where that leaves nobody, and nobody has seen its end."""
        turn_id = sent.turn.key.turn_id
        self._readers[turn_id] -= 1
        if self._readers[turn_id] <= 0:
            del self._readers[turn_id]
            if not (sent.tail.ended or background):
                self._left_unread(sent.turn)
        await sent.tail.aclose()

    def _left_unread(self, turn: Turn) -> None:
        """Cancels a turn that nobody reads."""
        if turn.key.turn_id in self._readers:
            return
        # In a fresh context: what belongs to a request is cancelled with it.
        task = asyncio.create_task(self._cancel(turn), context=contextvars.Context())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def ended(self, key: TurnKey) -> tuple[Turn, Ended]:
        """A turn as its record has it, with what that lacks of an end that was no answer. Raises NotFound."""
        turn = await self._services.store.get_turn(key)
        if turn.state not in {"failed", "cancelled"}:
            return turn, Ended()
        failure, message = await asyncio.gather(self._failure(turn), self._message(turn))
        return turn, Ended(failure=failure, message=message)

    async def _failure(self, turn: Turn) -> ParleyError | None:
        if turn.state != "failed":
            return None
        try:
            page = await self._services.store.read_events(turn.key, after_seq=turn.last_seq - 1)
        except ParleyError:
            return None  # the log is past retention
        events = [record.event() for record in page.records if record.terminal]
        return next((failure_of(event) for event in events if isinstance(event, TurnFailed)), None)

    async def _message(self, turn: Turn) -> Message | None:
        try:
            return await self._services.store.get_message(turn.key.conversation, turn.key.assistant_message_id)
        except ParleyError:
            return None

    async def _cancel(self, turn: Turn) -> None:
        try:
            await self._chat.cancel(turn.principal, turn.key.turn_id)
        except ParleyError as error:
            _log.warning("left_turn_not_cancelled", turn_id=turn.key.turn_id, code=error.code)

    async def _prompts(self, caller: Principal) -> tuple[str, ...]:
        """Remembered by tenant and roles, which they depend on."""
        holder = (caller.tenant_id, caller.roles)
        kept = self._names.get(holder)
        if kept is None or time.monotonic() >= kept[0]:
            names = await self._services.prompts.names(caller)
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            kept = self._names[holder] = (time.monotonic() + NAMES_FRESH_S, names)
        return kept[1]


def no_model(name: str) -> NotFound:
    message = f"The model '{name[:200]}' does not exist or you do not have access to it."
    return NotFound(message, None, None, [{"field": "model", "message": message, "code": "model_not_found"}])


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves. Raises ClientLeft. The body has been read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def first_shown(batches: AsyncIterator[list[Shown]]) -> list[Shown]:
    """What a tail shows up to the first thing that says how it goes, or up to its first heartbeat."""
    shown: list[Shown] = []
    async for batch in batches:
        shown.extend(batch)
        if not batch or any(isinstance(item, EventRecord) and item.seq > 1 for item in batch):
            break
    return shown


def _given_up(turn: Turn) -> bool:
    return turn.state in {"failed", "cancelled"} or (turn.cancel_requested and not turn.ended)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
