"""Clients: devices that send, watch, leave, come back at their cursor, and show what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.turns import Query
from serve_app.errors import ParleyError, QuotaExceeded
from serve_app.ingress.chat import ChatService
from serve_app.ingress.tail import TurnTail
from tests.simulation.ledger import Verdict
from tests.simulation.loop import Process

PRINCIPAL = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
RETRY_S = 0.3
MAX_TRIES = 60


@dataclass
class Ingress:
    """A replica of the ingress stage: a process, and the real use cases in it."""

    process: Process
    chat: ChatService


class View:
    """What one device shows of one turn: a page that is left and come back to keeps it."""

    def __init__(self, turn_id: str, verdict: Verdict) -> None:
        self.turn_id = turn_id
        self.records: list[EventRecord] = []
        self.texts: list[str] = [""]
        self.ended = False
        self.left = False
        self.visit = 0
        """Counts how often the page was opened; what a stream of an earlier visit still brings is not shown."""
        self._verdict = verdict

    @property
    def cursor(self) -> int:
        return len(self.records)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def knows(self, record: EventRecord) -> bool:
        """Whether it has shown the event, or one in whose place a reset has come since: another will void it."""
        return self.records[record.seq - 1] == record or record.body.startswith(b'{"type":"step.reset"')

    def show(self, record: EventRecord) -> None:
        """Takes the next event; it has to be the next, and of this turn."""
        expect, where = self._verdict.expect, f"{self.turn_id}: event {record.seq} after {self.cursor}"
        expect(record.seq == self.cursor + 1, "a client gets every event once, in order", where)
        expect(not self.ended, "the terminal event is the last", where)
        event: dict[str, Any] = msgspec.json.decode(record.body)
        expect(event["turn_id"] == self.turn_id, "a stream has events of its turn only", f"{where}: {event}")
        expect(event["seq"] == record.seq, "an event has the seq of its record", f"{where}: {event}")
        self.records.append(record)
        match event["type"]:
            case "text.delta":
                self.texts[-1] += event["delta"]
            case "step.reset":
                self.texts[-1] = ""
            case "tool.started" if self.texts[-1]:
                self.texts.append("")
            case "chat_response" | "turn.failed" | "turn.cancelled":
                self.ended = True
                expect(
                    self.text == event["response"],
                    "what was shown is the answer",
                    f"{self.turn_id}: showed {self.text!r}, response {event['response']!r}",
                )


@dataclass
class Sending:
    """A message on its way. ``turn_id`` is set once it has been acknowledged."""

    client_turn_id: str
    conversation_id: str
    content: str
    replaces: str | None = None
    turn_id: str | None = None
    visit: int = 0
    refused: str | None = None


@dataclass
class Client:
    """One device. ``ingress`` gives a replica that is there, another one each time where there are several."""

    name: str
    process: Process
    ingress: Callable[[], Ingress | None]
    verdict: Verdict
    views: dict[str, View] = field(default_factory=dict)
    sendings: list[Sending] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def send(self, sending: Sending) -> None:
        self.sendings.append(sending)
        self.tasks.append(self.process.spawn(self._send(sending)))

    def watch(self, turn_id: str) -> None:
        view = self.views.get(turn_id)
        if view is None or view.left:
            view = view or View(turn_id, self.verdict)
            view.left = False
            view.visit += 1
            self.views[turn_id] = view
            self.tasks.append(self.process.spawn(self._follow(view, view.visit)))

    def leave(self) -> None:
        for view in self.views.values():
            view.left = True

    def come_back(self) -> None:
        for view in list(self.views.values()):
            if view.left:
                self.watch(view.turn_id)

    def cancel(self, turn_id: str) -> None:
        async def ask() -> None:
            await self._at_ingress(lambda ingress: _cancel(ingress, turn_id))

        self.tasks.append(self.process.spawn(ask()))

    @property
    def busy(self) -> bool:
        self.tasks = [task for task in self.tasks if not task.done()]
        return bool(self.tasks)

    async def _send(self, sending: Sending) -> None:
        """Sends until it is acknowledged or refused for good, with the same id each time."""
        for _ in range(MAX_TRIES):
            outcome = await self._at_ingress(lambda ingress: self._send_once(ingress, sending))
            if sending.turn_id is not None:
                view = self.views[sending.turn_id]
                await self._follow(view, sending.visit)
                return
            if isinstance(outcome, ParleyError) and (not outcome.retryable or isinstance(outcome, QuotaExceeded)):
                sending.refused = outcome.message
                return
            await asyncio.sleep(RETRY_S)

    async def _send_once(self, ingress: Ingress, sending: Sending) -> None:
        how: dict[str, Any] = {} if sending.replaces is None else {"replaces": sending.replaces}
        sent = await ingress.chat.send(
            PRINCIPAL,
            sending.conversation_id,
            Query(content=sending.content),
            client_turn_id=sending.client_turn_id,
            request_id=sending.client_turn_id,
            title_wait_s=2.0,
            **how,
        )
        turn_id = sending.turn_id = sent.turn.key.turn_id
        view = self.views.setdefault(turn_id, View(turn_id, self.verdict))
        view.visit += 1
        sending.visit = view.visit
        await self._show(sent.tail, view, view.visit)

    async def _follow(self, view: View, visit: int) -> None:
        """Follows from the cursor, again wherever the stream breaks, until the end has been shown or the page is left."""
        for _ in range(MAX_TRIES):
            if view.ended or view.left or view.visit != visit:
                return
            await self._at_ingress(lambda ingress: self._resume(ingress, view, visit))
            if not view.ended:
                await asyncio.sleep(RETRY_S)

    async def _resume(self, ingress: Ingress, view: View, visit: int) -> None:
        await self._show(await ingress.chat.resume(PRINCIPAL, view.turn_id, view.cursor), view, visit)

    async def _show(self, tail: TurnTail, view: View, visit: int) -> None:
        # A send that is repeated shows the turn from its first event; a page that shows some of it goes on from there.
        begun = view.cursor
        batches: AsyncIterator[Any] = aiter(tail)
        try:
            async for batch in batches:
                if view.left or view.visit != visit:
                    return
                for item in batch:
                    if isinstance(item, EventRecord) and not (item.seq <= begun and view.knows(item)):
                        view.show(item)
        finally:
            await tail.aclose()

    async def _at_ingress(self, do: Callable[[Ingress], Any]) -> Any:
        """Does something at a replica; gives what came of it, or the error. One that dies cuts the connection."""
        ingress = self.ingress()
        if ingress is None:
            return None
        task = ingress.process.spawn(do(ingress))
        await asyncio.wait({task, ingress.process.died}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return None
        error = task.exception()
        if error is not None and not isinstance(error, ParleyError):
            self.verdict.fail("ingress raises errors with a sentence only", f"{self.name}: {error!r}")
        return error if error is not None else task.result()


async def _cancel(ingress: Ingress, turn_id: str) -> None:
    await ingress.chat.cancel(PRINCIPAL, turn_id)
