"""Against programs that nobody here wrote: a tool server and a provider from npm."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import OutsideGraph
from tests.peers import node_peer

EVERYTHING = (
    "echo", "get-annotated-message", "get-env", "get-resource-links", "get-resource-reference", "get-structured-content",
    "get-sum", "get-tiny-image", "gzip-file-as-resource", "simulate-research-query", "toggle-simulated-logging",
    "toggle-subscriber-updates", "trigger-long-running-operation",
)  # fmt: skip
"""What it offers to a client that has no sampling, no elicitation and no roots; three more need one of those."""


@pytest.fixture
def with_everything(outside: OutsideGraph) -> OutsideGraph:
    node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")
    return outside


@pytest.fixture
def with_aimock(outside: OutsideGraph) -> OutsideGraph:
    node_peer("@copilotkit/aimock", "llmock")
    return outside


async def test_its_tools_are_discovered(with_everything: OutsideGraph) -> None:
    async with with_everything.as_new_user("peers") as api:
        names: list[str] = []
        async with asyncio.timeout(60):
            while len(names) < len(EVERYTHING):
                await asyncio.sleep(0.1)
                names = (await api.get("/api/authz"))["tools"]
    assert set(names) == {f"everything.{name}" for name in EVERYTHING}


@pytest.mark.parametrize(
    ("model", "tool", "said"),
    [
        ("peer-echo", "everything.echo", "grüß dich"),
        ("peer-sum", "everything.get-sum", "42"),
        ("peer-long", "everything.trigger-long-running-operation", "completed"),
    ],
)
async def test_its_tools_are_called_through_a_conversation(
    with_everything: OutsideGraph, model: str, tool: str, said: str
) -> None:
    async with with_everything.as_new_user("peers") as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Go", model_id=model)
        assert turn.last["type"] == "chat_response"
        assert turn.tools == [tool]
        assert turn.results[0]["ok"] is True
        assert said in str(turn.results[0]["result"])
        await api.check_stored(chat.session["session_id"], turn)


async def test_a_provider_of_others_answers_over_both_transports(with_aimock: OutsideGraph) -> None:
    async with with_aimock.as_new_user("") as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("hello aimock", model_id="aimock-chat")
        assert turn.last["response"] == "Hello from a provider that nobody here wrote."
        stream = await api.chat("hello aimock", model_id="aimock-chat")
        assert stream.text == turn.last["response"]
        failed = await chat.ask("something it has no answer for", model_id="aimock-chat")
        assert failed.last["type"] == "turn.failed"


async def test_a_provider_and_a_tool_server_of_others_work_together(
    with_aimock: OutsideGraph, with_everything: OutsideGraph
) -> None:
    async with with_aimock.as_new_user("peers") as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("sum it up", model_id="aimock-chat")
        assert turn.last["type"] == "chat_response", turn.last
        assert turn.tools == ["everything.get-sum"]
        assert turn.results[0]["ok"] is True
        assert "3" in str(turn.results[0]["result"])
        assert turn.last["response"] == "The sum is three."
