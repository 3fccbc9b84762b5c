"""Roles decide which tools a model is offered and which it may call, whatever it asks for."""

from __future__ import annotations

import httpx2
import pytest

from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer


async def offered(graph: ParleyServer, model: str) -> list[set[str]]:
    """The tools in every request the provider got for this model, as it saw them."""
    async with httpx2.AsyncClient(base_url=graph.provider_url, trust_env=False) as http:
        seen = (await http.get("/_sim/requests")).json()["requests"]
    return [set(request["tools"]) for request in seen if request["model"] == model]


async def test_a_sales_user_is_offered_the_crm_and_only_that(graph: ParleyServer) -> None:
    async with Api.as_new_user(graph.url, "sales") as api, api.socket() as chat:
        session = await chat.start_session()
        assert {tool.partition(".")[0] for tool in session["tools"]} == {"crm"}
        turn = await chat.ask("Which opportunities does Contoso have?", model_id="roles-probe-sales")
        assert turn.tools == ["crm.list_opportunities"]
    requests = await offered(graph, "roles-probe-sales")
    assert requests
    assert all(tools and all(tool.startswith("crm__") for tool in tools) for tools in requests)


async def test_an_hr_user_is_not_offered_crm_tools_and_the_same_question_calls_none(graph: ParleyServer) -> None:
    async with Api.as_new_user(graph.url, "hr") as api, api.socket() as chat:
        session = await chat.start_session()
        assert {tool.partition(".")[0] for tool in session["tools"]} == {"hr"}
        turn = await chat.ask("Which opportunities does Contoso have?", model_id="roles-probe-hr")
        assert turn.last["type"] == "chat_response"
        assert not [tool for tool in turn.tools if tool.startswith("crm.")]
        staff = await chat.ask("Which departments are there?")
        assert staff.tools == ["hr.list_departments"]
    requests = await offered(graph, "roles-probe-hr")
    assert requests
    assert not [tool for tools in requests for tool in tools if tool.startswith("crm")]


@pytest.mark.parametrize(("roles", "model"), [("hr", "wants-crm"), ("sales", "wants-hr"), ("", "wants-crm")])
async def test_a_tool_of_another_role_is_not_run_even_when_the_model_asks(
    graph: ParleyServer, roles: str, model: str
) -> None:
    async with Api.as_new_user(graph.url, roles) as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Please", model_id=model)
        assert turn.last["type"] == "chat_response"
        assert [result["ok"] for result in turn.results] == [False]
        assert isinstance(turn.results[0]["result"], str), "a refusal, and no data"


async def test_a_tool_of_another_role_is_refused_when_the_user_asks_for_it(graph: ParleyServer) -> None:
    async with Api.as_new_user(graph.url, "hr") as api, api.socket() as chat:
        await chat.start_session()
        error = await chat.refused({"type": "query", "content": "x", "tool_id": "crm.find_account"})
        assert error["code"] == "not_permitted"


async def test_a_session_may_narrow_its_roles_but_not_widen_them(graph: ParleyServer) -> None:
    async with Api.as_new_user(graph.url, "sales,hr") as api, api.socket() as chat:
        both = await chat.start_session()
        assert {tool.partition(".")[0] for tool in both["tools"]} == {"crm", "hr"}
        narrowed = await chat.start_session(both["session_id"], role="hr")
        assert {tool.partition(".")[0] for tool in narrowed["tools"]} == {"hr"}
        turn = await chat.ask("Please", model_id="wants-crm")
        assert [result["ok"] for result in turn.results] == [False]
        widened = await chat.start_session(both["session_id"], role="admin")
        assert (widened["roles"], widened["tools"]) == ([], []), "a role that was not granted is none"


async def test_a_tool_that_was_asked_for_before_it_was_offered_can_be_called_once_it_is(graph: ParleyServer) -> None:
    async with Api.as_new_user(graph.url, "hr") as api, api.socket() as chat:
        session = await chat.start_session()
        refused = await chat.ask("Please", model_id="wants-crm")
        assert [result["ok"] for result in refused.results] == [False]
    async with Api.as_user(graph.url, api.user, "sales") as promoted, promoted.socket() as chat:
        await chat.start_session(session["session_id"])
        turn = await chat.ask("Please", model_id="wants-crm")
        assert [result["ok"] for result in turn.results] == [True]
