"""A tool server that is not there, comes, and goes, while the graph runs on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.e2e.conftest import OutsideGraph
from tests.e2e.protocol_client import Api

SETTLES_WITHIN_S = 60.0


async def readiness(api: Api) -> tuple[str, dict[str, Any]]:
    """Status of the whole, and the CRM server's view."""
    answer = await api.http.get("/ready")
    assert answer.status_code == 200, "conversations work without a tool server"
    body = answer.json()
    servers = {server["name"]: server for server in body["dependencies"]["tools"]["servers"]}
    return body["dependencies"]["tools"]["state"], servers["crm"]


async def until_crm_is(api: Api, state: str) -> dict[str, Any]:
    async with asyncio.timeout(SETTLES_WITHIN_S):
        while True:
            _, crm = await readiness(api)
            if crm["state"] == state:
                return crm
            await asyncio.sleep(0.2)


async def until_a_call_works(api: Api) -> None:
    """Turns may use a tool list they have seen some seconds ago; a call until then is refused in good order."""
    until = time.monotonic() + SETTLES_WITHIN_S
    while True:
        async with api.socket() as chat:
            await chat.start_session()
            turn = await chat.ask("Look it up", model_id="wants-crm")
        assert turn.last["type"] == "chat_response"
        if [result["ok"] for result in turn.results] == [True]:
            return
        assert time.monotonic() < until, turn.results[0]["result"]
        await asyncio.sleep(0.5)


async def test_it_is_reported_comes_back_without_a_restart_and_its_end_is_a_tool_error(outside: OutsideGraph) -> None:
    async with outside.as_new_user("sales") as api, api.socket() as chat:
        await until_crm_is(api, "down")
        state, crm = await readiness(api)
        assert state == "degraded"
        assert crm["tools"] == 0
        assert crm["error"] is None, "in production reasons are for the log"
        session = await chat.start_session()
        assert session["tools"] == []
        turn = await chat.ask("Find the account Contoso")
        assert turn.last["type"] == "chat_response"
        assert turn.tools == []

        await asyncio.to_thread(outside.crm.start)
        assert (await until_crm_is(api, "up"))["tools"] == 4
        session = await chat.start_session(session["session_id"])
        assert "crm.find_account" in session["tools"]
        await until_a_call_works(api)

        await asyncio.to_thread(outside.crm.kill)
        turn = await chat.ask("Look it up", model_id="wants-crm")
        assert turn.last["type"] == "chat_response"
        assert [result["ok"] for result in turn.results] == [False]
        assert isinstance(turn.results[0]["result"], str)
        assert "127.0.0.1" not in turn.results[0]["result"], "addresses are for the log"
        await until_crm_is(api, "down")

        await asyncio.to_thread(outside.crm.start)
        await until_crm_is(api, "up")
        await until_a_call_works(api)
