"""What is sent while another turn runs, and what takes the place of an earlier message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from serve_app.settings import ConversationSettings, Settings, TurnSettings
from tests.scripted import Reply as ModelReply
from tests.scripted import ScriptedModels, ScriptedTools
from tests.unit.ingress.asgi import Client, Exchange, Reply
from tests.unit.ingress.test_sse import asking, chunks
from tests.unit.ingress.whole import over_real_turns


@dataclass
class Chat:
    client: Client
    models: ScriptedModels

    async def send(self, content: str, **changes: Any) -> Reply:
        return await self.client.request("POST", "/api/chat", asking(content) | changes)

    async def begin(self, content: str, **changes: Any) -> Exchange:
        """Sends and returns once the model has been called; its reply must hold."""
        self.models.holding.clear()
        exchange = await self.client.open("POST", "/api/chat", asking(content) | changes)
        async with asyncio.timeout(5):
            await self.models.holding.wait()
        return exchange

    async def messages(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.client.request("GET", "/api/conversations/c1/messages", query=query)
        items: list[dict[str, Any]] = reply.json()["items"]
        return items

    async def shown(self, query: str = "") -> list[str]:
        return ["".join(part["text"] for part in item["parts"]) for item in await self.messages(query)]


@asynccontextmanager
async def chatting(*replies: ModelReply, **conversation: Any) -> AsyncIterator[Chat]:
    """A real turns stage behind a real ingress, in this process."""
    settings = Settings(
        store="memory",
        conversation=ConversationSettings(titles=False, **conversation),
        turn=TurnSettings(sweep_s=0.05, flush_ms=0),
    )
    models = ScriptedModels(*replies)
    async with over_real_turns(models, ScriptedTools(), settings) as app:
        yield Chat(Client(app, {"x-dev-user": "ana"}), models)


def said(*texts: str) -> list[ModelReply]:
    return [ModelReply(pieces=(text,)) for text in texts]


def text_of(reply: Reply) -> str:
    return "".join(chunk.get("delta", "") for chunk in chunks(reply))


async def finished(exchange: Exchange) -> str:
    shown = await exchange.text_until("[DONE]")
    exchange.disconnect()
    return shown


# -- a new answer ----------------------------------------------------------------------------------------------------


async def test_a_new_answer_takes_the_place_of_the_old_one_which_is_kept() -> None:
    async with chatting(*said("One", "Two")) as chat:
        first = await chat.send("Hi")
        old = (await chat.messages())[1]["id"]
        again = await chat.send("Hi", trigger="regenerate-message", messageId=old)
        assert text_of(again) == "Two"
        assert again.headers["x-turn-id"] != first.headers["x-turn-id"]
        assert await chat.shown() == ["Hi", "Two"]
        assert await chat.shown("replaced=true") == ["Hi", "One", "Two"]
        kept = {item["id"]: item["metadata"]["replaced_by"] for item in await chat.messages("replaced=true")}
        assert kept[old] == again.headers["x-turn-id"]
        # The model is asked the same, and hears nothing of its first answer.
        assert [message.content for message in chat.models.requests[1].messages] == ["You help.", "Hi"]


async def test_without_a_message_named_the_last_answer_is_made_again() -> None:
    async with chatting(*said("One", "Two", "Three")) as chat:
        await chat.send("Hi")
        await chat.send("More")
        await chat.send("More", trigger="regenerate-message")
        assert await chat.shown() == ["Hi", "One", "More", "Three"]


@pytest.mark.parametrize("named", ["by the client", "by the server"])
async def test_a_question_in_the_middle_is_answered_again_and_what_came_after_goes(named: str) -> None:
    async with chatting(*said("One", "Two", "Three")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        await chat.send("More")
        name = "m1" if named == "by the client" else (await chat.messages())[0]["id"]
        await chat.send("Hi", trigger="regenerate-message", messageId=name)
        assert await chat.shown() == ["Hi", "Three"]


async def test_asking_for_the_same_new_answer_twice_gives_it_twice() -> None:
    async with chatting(*said("One", "Two", "Three")) as chat:
        await chat.send("Hi")
        old = (await chat.messages())[1]["id"]
        once = await chat.send("Hi", trigger="regenerate-message", messageId=old)
        twice = await chat.send("Hi", trigger="regenerate-message", messageId=old)
        assert once.headers["x-turn-id"] == twice.headers["x-turn-id"]
        assert text_of(twice) == "Two"


async def test_an_answer_that_is_not_there_cannot_be_made_again() -> None:
    async with chatting(*said("One")) as chat:
        assert (await chat.send("Hi", trigger="regenerate-message")).status == 404
        await chat.send("Hi")
        assert (await chat.send("Hi", trigger="regenerate-message", messageId="nobody")).status == 404


# -- an edit ---------------------------------------------------------------------------------------------------------


def edited(text: str) -> dict[str, Any]:
    """What the AI SDK posts: the message keeps the id the client gave it."""
    return asking(text, message_id="m1") | {"messageId": "m1"}


async def test_an_edit_takes_the_place_of_the_question_and_of_all_that_came_after() -> None:
    async with chatting(*said("One", "Two", "Three", "Four")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        await chat.send("More")
        assert text_of(await chat.client.request("POST", "/api/chat", edited("Hello"))) == "Three"
        assert await chat.shown() == ["Hello", "Three"]
        # And once more, by the same id.
        await chat.client.request("POST", "/api/chat", edited("Good day"))
        assert await chat.shown() == ["Good day", "Four"]
        assert len(await chat.shown("replaced=true")) == 8


async def test_an_edit_sent_twice_makes_one_turn() -> None:
    async with chatting(*said("One", "Two", "Three")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        once = await chat.client.request("POST", "/api/chat", edited("Hello"))
        twice = await chat.client.request("POST", "/api/chat", edited("Hello"))
        assert once.headers["x-turn-id"] == twice.headers["x-turn-id"]
        assert text_of(twice) == "Two"


async def test_an_answer_cannot_be_edited() -> None:
    async with chatting(*said("One")) as chat:
        await chat.send("Hi")
        answer = (await chat.messages())[1]["id"]
        refused = await chat.send("Hello", messageId=answer)
        assert (refused.status, "only messages of the user" in refused.json()["detail"]) == (422, True)


async def test_a_message_of_somebody_else_cannot_be_edited() -> None:
    async with chatting(*said("One")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        body = asking("Hello") | {"messageId": "m1"}
        bob = Client(chat.client.app, {"x-dev-user": "bob"})
        assert (await bob.request("POST", "/api/chat", body)).status == 404
        assert await chat.shown() == ["Hi", "One"]


# -- while another turn runs -----------------------------------------------------------------------------------------


async def test_nothing_is_replaced_while_a_turn_runs() -> None:
    hold = asyncio.Event()
    async with chatting(*said("One"), ModelReply(pieces=("Two", "!"), hold=hold), on_busy="queue") as chat:
        await chat.send("Hi")
        running = await chat.begin("More")
        assert (await chat.send("Hi", trigger="regenerate-message")).status == 409
        hold.set()
        await finished(running)


async def test_a_queued_query_waits_for_the_running_one_and_knows_its_answer() -> None:
    hold = asyncio.Event()
    async with chatting(ModelReply(pieces=("One", "!"), hold=hold), *said("Two"), on_busy="queue") as chat:
        running = await chat.begin("First")
        waiting = await chat.client.open("POST", "/api/chat", asking("Second"))
        await waiting.text_until("data-conversation")
        assert len(chat.models.requests) == 1
        hold.set()
        assert "One" in await finished(running)
        assert "Two" in await finished(waiting)
        assert await chat.shown() == ["First", "One!", "Second", "Two"]
        assert [message.content for message in chat.models.requests[1].messages][1:] == ["First", "One!", "Second"]


async def test_more_than_may_wait_are_refused_with_a_reason() -> None:
    hold = asyncio.Event()
    held = ModelReply(pieces=("One", "!"), hold=hold)
    async with chatting(held, *said("Two"), on_busy="queue", max_waiting=1) as chat:
        running = await chat.begin("First")
        waiting = await chat.client.open("POST", "/api/chat", asking("Second"))
        await waiting.text_until("data-conversation")
        refused = await chat.send("Third")
        assert (refused.status, refused.json()["retryable"]) == (429, True)
        hold.set()
        await finished(running)
        await finished(waiting)


async def test_a_waiting_query_can_be_cancelled_at_once() -> None:
    hold = asyncio.Event()
    async with chatting(ModelReply(pieces=("One", "!"), hold=hold), *said("Two"), on_busy="queue") as chat:
        running = await chat.begin("First")
        waiting = await chat.client.open("POST", "/api/chat", asking("Second"))
        start = await waiting.message()
        turn_id = dict(start["headers"])[b"x-turn-id"].decode()
        async with chat.client.socket() as socket:
            await socket.accepted()
            socket.send(type="cancel", turn_id=turn_id)
            assert "abort" in await finished(waiting)
        assert len(chat.models.requests) == 1
        hold.set()
        await finished(running)
        assert await chat.shown() == ["First", "One!", "Second", ""]


async def test_an_interrupting_query_stops_the_running_one_and_keeps_what_it_said() -> None:
    never = asyncio.Event()
    async with chatting(ModelReply(pieces=("One", "!"), hold=never), *said("Two"), on_busy="interrupt") as chat:
        running = await chat.begin("First")
        assert text_of(await chat.send("Second")) == "Two"
        assert "abort" in await finished(running)
        assert chat.models.cancelled.is_set()
        assert await chat.shown() == ["First", "One", "Second", "Two"]
        assert (await chat.messages())[1]["metadata"]["status"] == "cancelled"


async def test_a_query_right_after_a_stop_is_taken() -> None:
    never = asyncio.Event()
    async with chatting(ModelReply(pieces=("One", "!"), hold=never), *said("Two")) as chat:
        running = await chat.begin("First")
        assert (await chat.send("Too soon")).status == 409
        assert (await chat.client.request("POST", "/api/chat/c1/stop")).status == 200
        assert text_of(await chat.send("Second")) == "Two"
        await finished(running)


async def test_a_new_answer_asked_for_while_it_is_made_is_the_one_that_is_made() -> None:
    hold = asyncio.Event()
    async with chatting(*said("One"), ModelReply(pieces=("Two", "!"), hold=hold), *said("Three")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        running = await chat.begin("Hi", trigger="regenerate-message")
        repeated = [
            await chat.client.open("POST", "/api/chat", asking("Hi") | {"trigger": "regenerate-message"} | named)
            for named in ({}, {"messageId": "m1"})
        ]
        hold.set()
        assert "Two" in await finished(running)
        for again in repeated:
            assert "Two" in await finished(again)
        assert await chat.shown() == ["Hi", "Two!"]


async def test_a_new_answer_asked_for_right_after_a_stop_is_to_the_question_that_was_stopped() -> None:
    never = asyncio.Event()
    async with chatting(*said("One"), ModelReply(pieces=("Two", "!"), hold=never), *said("Three")) as chat:
        await chat.send("Hi")
        running = await chat.begin("More")
        assert (await chat.send("More", trigger="regenerate-message")).status == 409
        assert (await chat.client.request("POST", "/api/chat/c1/stop")).status == 200
        assert text_of(await chat.send("More", trigger="regenerate-message")) == "Three"
        assert await chat.shown() == ["Hi", "One", "More", "Three"]
        await finished(running)


async def test_the_same_words_with_another_model_are_another_question() -> None:
    async with chatting(*said("One", "Two")) as chat:
        await chat.client.request("POST", "/api/chat", asking("Hi", message_id="m1"))
        await chat.client.request("POST", "/api/chat", edited("Hi") | {"model_id": "large"})
        assert await chat.shown() == ["Hi", "Two"]
