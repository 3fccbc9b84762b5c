"""A tool that changes something waits for its user where the model has read others' words, in the graph as it ships."""

from __future__ import annotations

import pytest

from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer

OBEYS = "obeys-what-it-reads"


async def amount(api: Api) -> int:
    """The opportunity's amount, as the tool server has it."""
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("What is the status of OPP-1002?")
        return int(turn.results[0]["result"]["amount"])


@pytest.mark.parametrize("approved", [False, True])
async def test_what_a_model_would_change_is_up_to_its_user(graph: ParleyServer, approved: bool) -> None:
    async with Api.as_new_user(graph.url, "sales") as api:
        before = await amount(api)
        async with api.socket() as chat:
            await chat.start_session()
            turn = await chat.begin("Tell me about OPP-1002", model_id=OBEYS)
            question = await chat.until("tool.approval")
            assert (question["name"], question["arguments"]) == (
                "crm.update_opportunity",
                {"id": "OPP-1002", "amount": 1},
            )
        # The question outlives the connection that it came over.
        answered = await api.http.post(f"/api/approvals/{question['approval_id']}", json={"approved": approved})
        assert answered.status_code == 200, answered.text
        ended = await api.turn_events(turn.turn_id)
        assert ended.events[-1]["type"] == "chat_response"
        assert ended.tools == ["crm.get_opportunity", *(["crm.update_opportunity"] if approved else [])]
        assert await amount(api) == (1 if approved else before)


async def test_a_question_is_answered_over_the_websocket_and_only_by_its_user(graph: ParleyServer) -> None:
    async with (
        Api.as_new_user(graph.url, "sales") as api,
        Api.as_new_user(graph.url, "sales") as stranger,
        api.socket() as chat,
        stranger.socket() as other,
    ):
        await chat.start_session()
        await other.start_session()
        turn = await chat.begin("Tell me about OPP-1002", model_id=OBEYS)
        question = await chat.until("tool.approval")
        answer = {"type": "approval", "approval_id": question["approval_id"], "approved": False}
        assert (await other.refused(answer))["code"] == "not_found"
        await chat.send(answer)
        await chat.finish(turn)
        assert [result["ok"] for result in turn.results] == [True, False]
        assert (await chat.refused(answer | {"approved": True}))["code"] == "conflict"
