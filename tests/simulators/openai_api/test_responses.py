"""Responses as the official Python SDK makes, reads, resumes and cancels them."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from serve_app.domain.tools import ToolCall
from serve_app.errors import UpstreamFailed
from serve_app.settings import LimitSettings, Settings
from tests.scripted import Reply
from tests.simulators.openai_api.conftest import Api, Serve
from tests.simulators.openai_api.test_chat_completions import PARIS, crm

WAIT_S = 20
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


async def events(api: Api, **request: Any) -> list[Any]:
    stream = await api.client.responses.create(stream=True, **{"model": "small", "input": "Hi", **request})
    return [event async for event in stream]


async def until(api: Api, response_id: str, status: str) -> Response:
    async with asyncio.timeout(WAIT_S):
        while (found := await api.client.responses.retrieve(response_id)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # polling is what its clients do
    return found


async def test_a_response_is_told_with_its_request_and_retrieved_the_same(serve: Serve) -> None:
    async with serve() as api:
        made = await api.client.responses.create(
            model="small",
            instructions="Be brief.",
            input=[
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "message", "role": "assistant", "content": "Hello"},
                {"role": "user", "content": "And?"},
            ],
            metadata={"k": "v"},
            max_output_tokens=50,
            temperature=0.5,
            reasoning={"effort": "low"},
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        )
        again = await api.client.responses.retrieve(made.id)
        (request,) = api.models.requests
    assert made.id.startswith("resp_")
    assert (made.status, made.output_text, made.model) == ("completed", "Hello there", "small")
    assert (made.instructions, made.metadata, made.max_output_tokens) == ("Be brief.", {"k": "v"}, 50)
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (10, 5, 15)
    assert again.to_dict() == made.to_dict()
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "And?"),
    ]
    assert request.settings.max_output_tokens == 50
    assert request.settings.reasoning_effort == "low"
    assert request.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}},
    }


async def test_a_stream_is_read_by_the_sdks_own_accumulator(serve: Serve) -> None:
    async with serve(Reply(pieces=("Let me ", "see."), tool_calls=(PARIS,))) as api:
        async with api.client.responses.stream(model="small", input="Hi", tools=[WEATHER]) as stream:
            read = [event async for event in stream]
            final = await stream.get_final_response()
        stored = await api.client.responses.retrieve(final.id)
    assert [event.type for event in read[:2]] == ["response.created", "response.in_progress"]
    assert read[-1].type == "response.completed"
    assert [event.sequence_number for event in read] == list(range(len(read)))
    assert "".join(event.delta for event in read if event.type == "response.output_text.delta") == "Let me see."
    output: Any = final.output
    message, call = output
    assert final.output_text == "Let me see."
    assert (call.type, call.to_dict()["call_id"], call.to_dict()["arguments"]) == (
        "function_call",
        "call_1",
        '{"city":"Paris"}',
    )
    assert [item["id"] for item in stored.to_dict()["output"]] == [message.id, call.id]  # type: ignore[attr-defined]
    assert stored.output_text == "Let me see."


async def test_a_tools_loop_goes_on_from_the_response_before(serve: Serve) -> None:
    async with serve(Reply(pieces=("Wait. ",), tool_calls=(PARIS,)), Reply(pieces=("Sunny.",))) as api:
        first = await api.client.responses.create(
            model="small", input="Weather?", instructions="Be brief.", tools=[WEATHER]
        )
        second = await api.client.responses.create(
            model="small",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": "call_1", "output": "sun"}],
            tools=[WEATHER],
        )
        third = await api.client.responses.create(
            model="small", previous_response_id=second.id, input="Thanks", instructions="Be kind."
        )
        asked = [message.content for message in api.models.requests[2].messages]
        roles = [message.role for message in api.models.requests[1].messages]
        items = [item async for item in api.client.responses.input_items.list(second.id, order="asc")]
    assert roles == ["user", "assistant", "tool"], "instructions are not carried on"
    assert asked == ["Be kind.", "Weather?", "Wait. ", "sun", "Sunny.", "Thanks"]
    assert second.previous_response_id == first.id
    assert third.output_text == "Sunny."
    assert [item.type for item in items] == ["function_call_output"]


async def test_input_items_are_paged(serve: Serve) -> None:
    async with serve() as api:
        made = await api.client.responses.create(
            model="small", input=[{"role": "user", "content": f"m{n}"} for n in range(5)]
        )
        pages = api.client.responses.input_items.list(made.id, limit=2, order="asc")
        items: list[Any] = [item async for item in pages]
    assert [item.content[0].text for item in items] == ["m0", "m1", "m2", "m3", "m4"]


async def test_a_background_response_goes_on_alone_and_is_streamed_from_where_its_reader_was(serve: Serve) -> None:
    hold = asyncio.Event()
    async with serve(Reply(pieces=("one ", "two ", "three ", "four"), hold=hold)) as api:
        stream = await api.client.responses.create(model="small", input="Count", background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        response_id = seen[0].response.id
        assert (await api.client.responses.retrieve(response_id)).status == "in_progress"
        cursor = seen[-1].sequence_number
        rest = await api.client.responses.retrieve(response_id, stream=True, starting_after=cursor)
        hold.set()
        seen += [event async for event in rest]
        assert not api.models.cancelled.is_set()
        replayed = [event async for event in await api.client.responses.retrieve(response_id, stream=True)]
        done = await until(api, response_id, "completed")
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == (
        "one two three four"
    )
    assert [event.to_dict() for event in replayed] == [event.to_dict() for event in seen]
    assert seen[-1].response.to_dict() == done.to_dict()


async def test_a_background_response_is_told_at_once_and_cancelled_from_anywhere(serve: Serve) -> None:
    async with serve(Reply(pieces=("Hel", "lo"), hold=asyncio.Event())) as api:
        made = await api.client.responses.create(model="small", input="Hi", background=True)
        assert made.status in {"queued", "in_progress"}
        assert made.background is True
        await asyncio.wait_for(api.models.holding.wait(), WAIT_S)
        stopped = await api.client.responses.cancel(made.id)
        assert api.models.cancelled.is_set()
        assert stopped.status == "cancelled"
        assert stopped.output_text == "Hel"
        assert (await api.client.responses.cancel(made.id)).status == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_what_is_not_in_the_background(stream: bool, serve: Serve) -> None:
    async with serve(Reply(pieces=("Hel", "lo"), hold=asyncio.Event())) as api:
        if stream:
            reading = await api.client.responses.create(model="small", input="Hi", stream=True)
            async for event in reading:
                if event.type == "response.output_text.delta":
                    break
            await reading.close()
        else:
            asking = asyncio.ensure_future(api.client.responses.create(model="small", input="Hi"))
            await asyncio.wait_for(api.models.holding.wait(), WAIT_S)
            asking.cancel()
        await asyncio.wait_for(api.models.cancelled.wait(), WAIT_S)


async def test_text_that_came_twice_is_void_the_first_time(serve: Serve) -> None:
    async with serve(Reply(pieces=("Hel", "lo"), error=UpstreamFailed("Gone.")), Reply(pieces=("Good ", "day"))) as api:
        async with api.client.responses.stream(model="small", input="Hi") as stream:
            read = [event async for event in stream]
            final = await stream.get_final_response()
        stored = await api.client.responses.retrieve(final.id)
    done: list[Any] = [event.item for event in read if event.type == "response.output_item.done"]
    assert [(item.status, item.content[0].text) for item in done] == [
        ("incomplete", "Hello"),
        ("completed", "Good day"),
    ]
    assert done[0].id != done[1].id
    assert final.output_text == stored.output_text == "Good day"
    assert [item.id for item in stored.output] == [done[1].id]


async def test_a_failed_response_says_so_in_its_stream_and_for_whoever_asks_later(serve: Serve) -> None:
    async with serve(Reply(pieces=("Hel", "lo"), error=UpstreamFailed("Gone.", False))) as api:
        read = await events(api)
        assert read[-1].type == "response.failed"
        assert (read[-1].response.error.code, read[-1].response.error.message) == ("server_error", "Gone.")
        stored = await api.client.responses.retrieve(read[-1].response.id)
        assert stored.to_dict() == read[-1].response.to_dict()
        assert (stored.status, stored.output_text) == ("failed", "Hello")
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.responses.create(model="small", input="Hi", previous_response_id=stored.id)
        assert refused.value.param == "previous_response_id"
    async with serve(Reply(error=UpstreamFailed("Down."))) as api:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError):
                await api.client.responses.create(model="small", input="Hi", stream=stream)


async def test_an_answer_cut_short_is_incomplete(serve: Serve) -> None:
    async with serve(Reply(pieces=("Hel",), finish_reason="length")) as api:
        read = await events(api)
    assert read[-1].type == "response.incomplete"
    assert read[-1].response.incomplete_details.reason == "max_output_tokens"


async def test_an_assistants_tools_leave_no_trace(serve: Serve) -> None:
    find = ToolCall(tool_call_id="f1", name="crm.find", arguments={})
    async with serve(Reply(pieces=("Looking. ",), tool_calls=(find,)), Reply(pieces=("Found.",)), tools=crm()) as api:
        made = await api.client.responses.create(model="assistant/assistant", input="Hi")
        assert [call.name for call in api.tools.calls] == ["crm.find"]
    assert [item.type for item in made.output] == ["message", "message"]
    assert made.output_text == "Looking. Found."


async def test_anothers_response_is_as_one_that_is_not_there(serve: Serve) -> None:
    async with serve() as api:
        made = await api.client.responses.create(model="small", input="A secret", background=True)
        missing = made.id[:-3] + "YYY"
        unstored = await api.client.responses.create(model="small", input="Hi", store=False)
        chat = await api.client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
        for client in (api.as_user("bert"), api.as_user("ana", "globex")):
            calls: list[Any] = [
                client.responses.retrieve,
                client.responses.cancel,
                client.responses.delete,
                lambda which, c=client: c.responses.retrieve(which, stream=True),
                lambda which, c=client: c.responses.input_items.list(which),
                lambda which, c=client: c.responses.create(model="small", input="Hi", previous_response_id=which),
            ]
            for call in calls:
                told = []
                for which in (made.id, missing):
                    with pytest.raises(openai.NotFoundError) as refused:
                        await call(which)
                    told.append(refused.value.response.text.replace(which, "<id>"))
                assert told[0] == told[1]
        for which in (unstored.id, chat.id.replace("chatcmpl-", "resp_"), "resp_x"):
            with pytest.raises(openai.NotFoundError):
                await api.client.responses.retrieve(which)
        await until(api, made.id, "completed")


async def test_a_deleted_response_is_gone(serve: Serve) -> None:
    async with serve() as api:
        made = await api.client.responses.create(model="small", input="Hi")
        await api.client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await api.client.responses.retrieve(made.id)


async def test_what_is_not_supported_is_refused_by_name(serve: Serve) -> None:
    async with serve() as api:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"truncation": "auto"}, "truncation"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"include": ["message.output_text.logprobs"]}, "include"),
            ({"tools": [{"type": "web_search"}]}, "tools.[0].type"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input.[0].type"),
            ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input.[0].tool_call_id"),
            ({"background": True, "store": False}, "store"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
            ({"extra_body": {"colour": "red"}}, "colour"),
            ({"extra_body": {"temperature": "hot"}}, "temperature"),
        ]
        for given, param in cases:
            with pytest.raises(openai.BadRequestError) as refused:
                await api.client.responses.create(**{"model": "small", "input": "Hi", **given})
            assert refused.value.param == param
        assert api.models.requests == []


async def test_a_chain_of_responses_carries_no_more_than_a_request_may_have(serve: Serve) -> None:
    settings = Settings(store="memory", limits=LimitSettings(v1_body_bytes=4_000))
    async with serve(settings=settings) as api:
        made = await api.client.responses.create(model="small", input="x" * 3_000)
        made = await api.client.responses.create(model="small", input="y" * 3_000, previous_response_id=made.id)
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.responses.create(model="small", input="z", previous_response_id=made.id)
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "context_length_exceeded")
