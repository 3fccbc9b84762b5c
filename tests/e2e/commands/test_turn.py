"""``parley turn show`` against a running graph, and against servers that answer otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.cli.servers import pages
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer
from tests.unit.cli.conftest import Run

FAILED: dict[str, Any] = {
    "turn_id": "c.1",
    "conversation_id": "c",
    "state": "failed",
    "created_at": "2026-11-02T09:31:10Z",
    "deadline": "2026-11-02T09:36:10Z",
    "finished_at": "2026-11-02T09:31:12Z",
    "last_seq": 5,
    "usage": {"input_tokens": 1, "output_tokens": 2},
    "steps": [],
}


async def test_a_person_sees_what_a_turn_with_tools_did(graph: ParleyServer, api: Api, run: Run) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Contoso, please", model_id="parallel-tools")
    who = ("--url", graph.url, "--as", api.user, "--roles", api.roles)
    result = run("turn", "show", turn.turn_id, *who)
    assert result.exit_code == 0, result.stderr
    assert f"Turn {turn.turn_id}  completed" in result.stdout
    assert "Contoso, please" in result.stdout
    assert "✓ crm.find_account(name: Contoso)" in result.stdout
    assert "✓ crm.list_opportunities(account: Contoso)" in result.stdout
    assert "2 tools in" in result.stdout
    assert "end: stop" in result.stdout
    assert "in all" in result.stdout
    assert "!" not in result.stdout
    as_json = run("turn", "show", turn.turn_id, *who, "--json")
    assert json.loads(as_json.stdout) == await api.get(f"/api/turns/{turn.turn_id}")


async def test_a_failed_turn_says_why_and_a_step_run_again_how_often(graph: ParleyServer, api: Api, run: Run) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        broken = await chat.ask("Anything", model_id="always-breaks")
        mended = await chat.ask("Anything", model_id=f"breaks-once-{api.user}")
    who = ("--url", graph.url, "--as", api.user)
    failed = run("turn", "show", broken.turn_id, *who)
    assert failed.exit_code == 0
    assert f"{broken.last['message']} ({broken.last['code']})" in failed.stdout
    assert "! Step 0 was run twice" in run("turn", "show", mended.turn_id, *who).stdout


@pytest.mark.parametrize("turn_id", ["c.01JCQ2Z7M5Y8W3X9K4T6V1B0ND", "no id at all/../x"])
async def test_a_missing_turn_and_another_users_are_one_sentence(
    graph: ParleyServer, api: Api, run: Run, turn_id: str
) -> None:
    result = run("turn", "show", turn_id, "--url", graph.url, "--as", api.user)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"There is no turn {turn_id!r} of {api.user} at {graph.url}; --as and --tenant say whose turn it is.\n"
    )


def test_a_failure_whose_events_are_gone_is_told_without_them(run: Run) -> None:
    with pages(content={"/api/turns/c.1": FAILED}) as url:
        assert "! Failed after 2.0 s; why is no longer kept." in run("turn", "show", "c.1", "--url", url).stdout


def test_who_asks_is_told_to_the_server_and_what_it_refuses_is_said(run: Run) -> None:
    asked: list[dict[str, str]] = []
    with pages(content={}, asked=asked) as url:
        result = run("turn", "show", "c.1", "--url", url, "--as", "ana", "--tenant", "acme", "--roles", "hr")
    assert (result.exit_code, result.stderr) == (1, "not found\n")
    assert {"X-Dev-User": "ana", "X-Dev-Tenant": "acme", "X-Dev-Roles": "hr"}.items() <= asked[-1].items()


def test_no_server_is_one_sentence(run: Run, ports: tuple[int, int]) -> None:
    result = run("turn", "show", "c.1")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"No Parley answers at http://127.0.0.1:{ports[0]} (nothing listens there)")
