"""The store as one process reaches it: over a network that delays, fails, loses replies, repeats and delivers late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from serve_app.domain.conversation import Conversation, Message, Page
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AcceptedTurn, AppendReply, AppendTurn, EventPage, NewTurn, Owner, Turn, TurnClaim
from serve_app.errors import StageUnavailable
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger, at_once
from tests.simulation.loop import Process, SimLoop
from tests.simulation.schedule import Place

T = TypeVar("T")


class SimStore:
    """What turns and chats use of the ``Store``, one per process.

    What was sent takes effect whatever becomes of the sender: it is the network that delivers it.
    """

    def __init__(self, process: Process, ledger: Ledger, faults: Faults) -> None:
        self._process = process
        self._ledger = ledger
        self._faults = faults

    # What a turn is written with

    async def accept_turn(self, turn: NewTurn, **how: Any) -> AcceptedTurn:
        return await self._send("accept", partial(self._ledger.accept_turn, self._process.name, turn, **how))

    async def claim_turn(self, key: TurnKey, owner: Owner, **how: Any) -> TurnClaim:
        return await self._send("claim", partial(self._ledger.claim_turn, self._process.name, key, owner, **how))

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        return await self._send("append", partial(self._ledger.append, self._process.name, tuple(batch)))

    async def request_cancel(self, key: TurnKey) -> Turn:
        return await self._send("cancel", lambda: at_once(self._ledger.store.request_cancel(key)))

    # What is read, and what no invariant is about

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        return await self._send("sweep", lambda: at_once(self._ledger.store.find_abandoned_turns(limit=limit)))

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        # Short pages, so that reading on is part of what is tried.
        limit = min(limit, 4)
        read = partial(self._ledger.store.read_events, key, after_seq=after_seq, limit=limit)
        return await self._send("read", lambda: at_once(read()))

    async def get_turn(self, key: TurnKey) -> Turn:
        return await self._send("read", lambda: at_once(self._ledger.store.get_turn(key)))

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        return await self._send("read", lambda: at_once(self._ledger.store.get_conversation(key)))

    async def get_message(self, key: ConversationKey, message_id: str) -> Message:
        return await self._send("read", lambda: at_once(self._ledger.store.get_message(key, message_id)))

    async def find_message(self, key: ConversationKey, client_id: str) -> Message:
        return await self._send("read", lambda: at_once(self._ledger.store.find_message(key, client_id)))

    async def list_messages(self, key: ConversationKey, **how: Any) -> Page[Message]:
        return await self._send("read", lambda: at_once(self._ledger.store.list_messages(key, **how)))

    async def ensure_conversation(self, key: ConversationKey) -> Conversation:
        return await self._send("read", lambda: at_once(self._ledger.store.ensure_conversation(key)))

    async def update_conversation(self, key: ConversationKey, **how: Any) -> Conversation:
        return await self._send("read", lambda: at_once(self._ledger.store.update_conversation(key, **how)))

    async def _send(self, place: Place, effect: Callable[[], T]) -> T:
        loop: SimLoop = self._process.loop
        faults = self._faults
        fault = faults.at(place)
        kind, duration_s = (fault.kind, fault.duration_s) if fault else ("none", 0.0)
        reply: asyncio.Future[T] = loop.create_future()

        def answer(give: Callable[[], None]) -> None:
            if not reply.done():
                give()

        def unavailable() -> None:
            answer(partial(reply.set_exception, StageUnavailable("The store does not answer.")))

        def deliver(*, replies: bool) -> None:
            try:
                give = partial(reply.set_result, effect())
            except Exception as error:
                give = partial(reply.set_exception, error)
            if kind == "die_after":
                self._process.kill()
            elif replies:
                loop.call_later(faults.latency_s(), answer, give)

        there_s = faults.latency_s()
        if kind == "fail":
            loop.call_later(there_s, unavailable)
        elif kind == "lose_reply":
            loop.call_later(there_s, partial(deliver, replies=False))
            loop.call_later(there_s + duration_s, unavailable)
        elif kind == "late":
            loop.call_later(there_s, unavailable)
            loop.call_later(there_s + duration_s, partial(deliver, replies=False))
        elif kind in {"die", "die_late"}:
            self._process.kill()
            if kind == "die_late":
                loop.call_later(duration_s, partial(deliver, replies=False))
        else:
            if kind == "slow":
                there_s += duration_s
            elif kind in {"stop", "stop_after"}:
                faults.stop(self._process, duration_s)
                # Stopped before it was sent, it is sent when the process goes on.
                there_s += duration_s if kind == "stop" else 0.0
            loop.call_later(there_s, partial(deliver, replies=True))
            if kind == "twice":
                loop.call_later(there_s + duration_s, partial(deliver, replies=False))
        return await reply
