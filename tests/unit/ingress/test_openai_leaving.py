"""Whoever leaves a request of OpenAI's API, at whatever moment and however the server tells of it, leaves no turn behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.turns import AcceptedTurn, NewTurn, OnBusy, Turn
from serve_app.errors import UpstreamFailed
from serve_app.ingress.app import create_app
from serve_app.ingress.openai_turns import OpenAiTurns
from serve_app.settings import Settings, TurnSettings
from serve_app.storage.memory import MemoryStore
from tests.scripted import Reply, ScriptedModels
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import StubTools, make_stages
from tests.unit.ingress.whole import real_turns

WAIT_S = 30
CHAT = ("/v1/chat/completions", {"model": "small", "messages": [{"role": "user", "content": "Hi"}]})
RESPONSE = ("/v1/responses", {"model": "small", "input": "Hi"})


class SlowToAccept(MemoryStore):
    """Accepts a turn, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.accepting = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        accepted = await super().accept_turn(turn, on_busy=on_busy, max_waiting=max_waiting)
        self.accepting.set()
        await self.answer.wait()
        return accepted


class Bench:
    def __init__(self, app: ASGIApp, openai: OpenAiTurns, store: SlowToAccept, models: ScriptedModels) -> None:
        self.client = Client(app, {"x-dev-user": "ana"})
        self.openai = openai
        self.store = store
        self.models = models

    def turn(self) -> Turn:
        (kept,) = self.store._conversations.values()
        (held,) = kept.turns.values()
        return held.turn

    async def until_ended(self) -> Turn:
        async with asyncio.timeout(WAIT_S):
            while not (turn := self.turn()).ended:  # noqa: ASYNC110 - the store offers no event
                await asyncio.sleep(0.01)
        return turn


@asynccontextmanager
async def bench(*replies: Reply) -> AsyncIterator[Bench]:
    stages = make_stages()
    stages.store = store = SlowToAccept()
    models = ScriptedModels(*replies)
    settings = Settings(store="memory", turn=TurnSettings(title_wait_s=0.05))
    async with real_turns(models, StubTools(), settings, stages) as services:
        app = create_app(services)
        yield Bench(app, app.state.openai, store, models)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [CHAT, RESPONSE])
async def test_a_request_cancelled_by_its_server_while_it_is_accepted_is_no_turn_of_nobodys(
    asked: tuple[str, dict[str, Any]], stream: bool
) -> None:
    path, body = asked
    async with bench(Reply(pieces=("Hel", "lo"), hold=asyncio.Event())) as b:
        b.store.answer.clear()
        exchange = await b.client.open("POST", path, {**body, "stream": stream})
        await asyncio.wait_for(b.store.accepting.wait(), WAIT_S)
        exchange.task.cancel()
        await asyncio.gather(exchange.task, return_exceptions=True)
        b.store.answer.set()
        assert (await b.until_ended()).state == "cancelled"
        assert not b.openai._readers


async def test_a_background_response_goes_on_where_its_client_left_before_it_was_accepted() -> None:
    async with bench(Reply(pieces=("Hello",))) as b:
        b.store.answer.clear()
        exchange = await b.client.open("POST", RESPONSE[0], {**RESPONSE[1], "background": True})
        await asyncio.wait_for(b.store.accepting.wait(), WAIT_S)
        exchange.task.cancel()
        await asyncio.gather(exchange.task, return_exceptions=True)
        b.store.answer.set()
        assert (await b.until_ended()).state == "completed"
        assert not b.openai._readers


@pytest.mark.parametrize("asked", [CHAT, RESPONSE])
async def test_a_client_that_is_gone_as_its_stream_begins_cancels_it(asked: tuple[str, dict[str, Any]]) -> None:
    path, body = asked
    async with bench(Reply(pieces=("Hel", "lo"), hold=asyncio.Event())) as b:
        app = b.client.app

        async def broken(scope: Scope, receive: Receive, send: Send) -> None:
            async def refusing(message: Message) -> None:
                raise asyncio.CancelledError

            await app(scope, receive, refusing)

        exchange = await Client(broken, b.client.headers).open("POST", path, {**body, "stream": True})
        await asyncio.gather(exchange.task, return_exceptions=True)
        assert (await b.until_ended()).state == "cancelled"
        assert not b.openai._readers


async def test_an_answer_that_was_begun_again_after_it_was_shown_is_not_made_for_nobody() -> None:
    async with bench(
        Reply(pieces=("Hel", "lo"), error=UpstreamFailed("Gone.")), Reply(pieces=("Good ", "day"), hold=asyncio.Event())
    ) as b:
        reply = await b.client.request("POST", CHAT[0], {**CHAT[1], "stream": True})
        assert b"begun again" in reply.body
        assert (await b.until_ended()).state == "cancelled"
        assert not b.openai._readers
