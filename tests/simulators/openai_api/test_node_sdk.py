"""The official Node SDK works against the server unchanged. Needs Node and the packages of ``tests/peers``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve_app.domain.tools import ToolCall
from serve_app.errors import Overloaded, UpstreamFailed
from tests.peers import FOLDER, node_package
from tests.scripted import Reply
from tests.simulators.openai_api.conftest import Api, Serve

RUN_S = 60
CALL = ToolCall(tool_call_id="call_1", name="get_weather", arguments={"city": "Paris"})


@pytest.fixture(autouse=True)
def node() -> str:
    return node_package("openai")


async def saw(api: Api, node: str, scenario: str) -> Any:
    """What the SDK has seen, while this loop serves it."""
    process = await asyncio.create_subprocess_exec(
        *(node, "openai_sdk.mjs"),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    request = json.dumps({"baseURL": api.url, "scenario": scenario})
    out, err = await asyncio.wait_for(process.communicate(request.encode()), RUN_S)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_a_chat_and_a_stream(serve: Serve, node: str) -> None:
    async with serve() as api:
        assert await saw(api, node, "chat") == {"text": "Hello there", "reason": "stop", "total": 15}
        assert await saw(api, node, "stream") == {"deltas": "Hello there", "text": "Hello there", "total": 15}


async def test_a_tools_loop(serve: Serve, node: str) -> None:
    async with serve(Reply(pieces=("Wait. ",), tool_calls=(CALL,)), Reply(pieces=("Sunny.",))) as api:
        seen = await saw(api, node, "tools")
    assert seen == {"reason": "tool_calls", "calls": [["call_1", "get_weather", '{"city":"Paris"}']], "text": "Sunny."}


async def test_a_responses_stream_and_what_follows_it(serve: Serve, node: str) -> None:
    async with serve(Reply(pieces=("Wait. ",), tool_calls=(CALL,)), Reply(pieces=("Sunny.",))) as api:
        seen = await saw(api, node, "responses")
    assert (seen["types"][0], seen["types"][-1]) == ("response.created", "response.completed")
    assert (seen["text"], seen["call"], seen["next"]) == ("Wait. ", '{"city":"Paris"}', "Sunny.")
    assert seen["items"] == ["function_call_output"]


async def test_a_background_response_is_resumed_cancelled_and_deleted(serve: Serve, node: str) -> None:
    async with serve(Reply(pieces=("one ", "two ", "three"), hold=asyncio.Event())) as api:
        seen = await saw(api, node, "background")
    assert seen["numbers"] == list(range(len(seen["numbers"])))
    assert (seen["last"], seen["status"]) == ("response.failed", ["cancelled", "cancelled"])
    assert seen["gone"]["class"] == "NotFoundError"


async def test_failures_are_the_classes_the_sdk_documents(serve: Serve, node: str) -> None:
    async with serve(
        Reply(error=Overloaded("Busy.")), Reply(pieces=("Hel",), error=UpstreamFailed("Gone.", False))
    ) as api:
        seen = await saw(api, node, "errors")
    assert [seen["model"][key] for key in ("class", "code", "param")] == ["NotFoundError", "model_not_found", "model"]
    assert [seen["n"][key] for key in ("class", "status", "param")] == ["BadRequestError", 400, "n"]
    assert seen["response"]["class"] == "NotFoundError"
    assert seen["response"]["requestID"] == "string"
    assert seen["who"]["class"] == "AuthenticationError"
    assert [seen["busy"][key] for key in ("class", "status", "code")] == ["InternalServerError", 503, "overloaded"]
    assert [seen["midway"][key] for key in ("class", "code")] == ["APIError", "upstream_failed"]


async def test_leaving_a_stream_cancels_it(serve: Serve, node: str) -> None:
    async with serve(Reply(pieces=("Hel", "lo"), hold=asyncio.Event())) as api:
        await saw(api, node, "leaving")
        await asyncio.wait_for(api.models.cancelled.wait(), RUN_S)


async def test_models_are_listed(serve: Serve, node: str) -> None:
    async with serve() as api:
        seen = await saw(api, node, "models")
    assert seen["ids"][0] == "small"
    assert "assistant/assistant" in seen["ids"]
    assert seen["one"] == "parley"
