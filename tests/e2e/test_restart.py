"""A graph that was stopped goes on where it was when it is started again."""

from __future__ import annotations

import asyncio
import signal

import httpx2
import pytest

from tests.e2e.conftest import OutsideGraph, on_sqlite
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer


@on_sqlite
@pytest.mark.timeout(420)
def test_a_second_start_finds_the_conversation_and_another_graph_is_left_alone(
    graph: ParleyServer, outside: OutsideGraph
) -> None:
    before = asyncio.run(_a_turn(graph))
    graph.stop(signal.SIGTERM)
    asyncio.run(_answers(outside.server))
    graph.start()
    asyncio.run(_answers(outside.server))
    asyncio.run(_goes_on(graph, before))


async def _a_turn(server: ParleyServer) -> list[dict[str, object]]:
    async with Api.as_user(server.url, "keeper") as api, api.socket() as chat:
        await chat.start_session("kept")
        turn = await chat.ask("Which opportunities does Contoso have?")
        assert turn.tools
        await chat.title()
        return await api.messages("kept")


async def _goes_on(server: ParleyServer, before: list[dict[str, object]]) -> None:
    async with Api.as_user(server.url, "keeper") as api, api.socket() as chat:
        listed = (await api.get("/api/conversations"))["items"]
        assert [item["id"] for item in listed] == ["kept"]
        assert listed[0]["title"]
        assert await api.messages("kept") == before
        await chat.start_session("kept")
        turn = await chat.ask("And what about Fabrikam? Find the account.")
        assert turn.last["type"] == "chat_response"
        assert len(await api.messages("kept")) == len(before) + 2


async def _answers(server: ParleyServer) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        assert (await http.get(f"{server.url}/health")).status_code == 200
