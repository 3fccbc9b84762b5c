"""A provider of one's own: OPENAI_BASE_URL names a server outside of the graph."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import API_KEY, OutsideGraph


async def asked(outside: OutsideGraph, model: str) -> list[dict[str, Any]]:
    """What the provider was asked for this model."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        requests = (await http.get(f"{outside.provider_url}/_sim/requests")).json()["requests"]
    return [request for request in requests if request["model"] == model]


async def test_nothing_is_said_to_be_simulated(outside: OutsideGraph) -> None:
    async with outside.as_new_user() as api:
        models = (await api.get("/api/capabilities"))["models"]
        ready = (await api.http.get("/ready")).json()
    assert models["simulated"] is False
    assert models["notice"] is None
    assert models["any_model"] is True
    assert models["default_model_id"] == "plain"
    assert "simulated" not in outside.server.output
    assert not ready["dependencies"]["models"]["simulated"]


@pytest.mark.parametrize("model", ["org/some-model:v2.1@eu", "Vendor.Model-8b_instruct", "plain"])
async def test_the_model_a_client_names_is_passed_on_untouched(outside: OutsideGraph, model: str) -> None:
    async with outside.as_new_user("") as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Good morning", model_id=model)
        assert turn.last["type"] == "chat_response", turn.raw
        message = await api.check_stored(chat.session["session_id"], turn)
    assert message["metadata"]["model_id"] == model
    requests = await asked(outside, model)
    assert requests
    assert all(request["path"] == "/v1/chat/completions" and request["stream"] for request in requests)


async def test_without_a_name_the_default_is_asked_and_sees_history(outside: OutsideGraph) -> None:
    async with outside.as_new_user("") as api, api.socket() as chat:
        await chat.start_session()
        first = await chat.ask(f"My name is {api.user}", model_id="remembering")
        await chat.ask("What is my name?", model_id="remembering")
    messages = (await asked(outside, "remembering"))[-1]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"] == f"My name is {api.user}"
    assert messages[2]["content"] == first.last["response"]


@pytest.mark.parametrize(
    ("model", "code", "retryable"),
    [
        ("always-busy", "quota_exceeded", True),
        ("refused", "upstream_failed", False),
        ("broken-stream", "upstream_failed", True),
        ("truncated", "upstream_failed", True),
        ("sim-q1", "invalid_input", False),
    ],
)
async def test_its_failures_end_the_turn_with_a_code(
    outside: OutsideGraph, model: str, code: str, retryable: bool
) -> None:
    async with outside.as_new_user("") as api, api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Go", model_id=model)
        assert turn.last["type"] == "turn.failed"
        assert (turn.last["code"], turn.last["retryable"]) == (code, retryable), turn.last
        assert "secret detail" not in str(turn.events)
        again = await chat.ask("Good morning")
        assert again.last["type"] == "chat_response"


def test_the_key_is_written_nowhere(outside: OutsideGraph) -> None:
    assert API_KEY not in outside.server.output
    lines = outside.server.logs()
    assert lines
    assert not [line for line in lines if API_KEY in line]
