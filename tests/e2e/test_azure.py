"""What the graph asks of Cosmos DB: how much a turn costs, and that nothing of it crosses partitions."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest

from tests.e2e.azure import Azure
from tests.e2e.conftest import on_azure
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer

MOST_WRITES = 12
MOST_READS = 6
EXPORTED_S = 30.0
"""Ray reports metrics every ten seconds."""
BEHIND_S = 20.0
"""Longest until the rows that are written behind a turn (usage, list of conversations) are there."""


@on_azure
@pytest.mark.parametrize("transport", ["socket", "stream"])
async def test_a_turn_with_a_tool_call_takes_few_operations_and_none_across_partitions(
    graph: ParleyServer, account: Azure, api: Api, transport: str
) -> None:
    async with api.socket() as chat:
        await chat.start_session("counted")
        before = await chat.ask("Find the account Contoso")
        await chat.title()
    _written_behind(
        account, api, before.turn_id, rows=2
    )  # that of the new conversation, and what its first turn made of it
    account.forget()

    if transport == "socket":
        async with api.socket() as chat:
            await chat.start_session("counted")
            account.forget()  # of opening a session, which many turns share
            turn = await chat.ask("Find the account Fabrikam")
        turn_id, calls = turn.turn_id, len(turn.tools)
    else:
        shown = await api.chat("Find the account Fabrikam", "counted")
        turn_id, calls = shown.turn_id, len(shown.tools)
    assert calls == 1
    done = _written_behind(account, api, turn_id, rows=1)
    writes = [each for each in done if each["kind"] == "write"]
    reads = [each for each in done if each["kind"] in ("read", "query")]
    assert len(writes) <= MOST_WRITES, [(e["name"], e["container"], e["document_id"], e["batch"]) for e in writes]
    assert len(reads) <= MOST_READS, reads
    assert not any(each["cross_partition"] for each in done)

    view = await api.get(f"/api/turns/{turn_id}")
    charged = sum(each["charge"] for each in done if each["container"] == "sessions" and each["kind"] == "write")
    assert view["request_charge"] == pytest.approx(charged, rel=0.5), "what the account charged, but for what is read"


@on_azure
async def test_what_cosmos_charges_is_exported_by_operation(graph: ParleyServer, api: Api) -> None:
    await api.chat("Find the account Contoso")
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        until = time.monotonic() + EXPORTED_S
        while "ray_parley_store_request_units_total{" not in (text := (await http.get(graph.metrics_url)).text):
            assert time.monotonic() < until, text[-2000:]
            await asyncio.sleep(0.5)
    assert "ray_parley_store_call_ms_count" in text


def _written_behind(account: Azure, api: Api, turn_id: str, *, rows: int) -> list[dict[str, Any]]:
    """The turn's operations since the log was emptied, once the rows that come behind are written."""
    until = time.monotonic() + BEHIND_S
    while True:
        own = [each for each in account.log() if each["status"] < 400 and _is_of(each, api.user, turn_id)]
        written = [each["container"] for each in own if each["kind"] == "write"]
        if "usage" in written and written.count("inbox") >= rows:
            return own
        assert time.monotonic() < until, own
        time.sleep(0.2)


def _is_of(operation: dict[str, Any], user: str, turn_id: str) -> bool:
    """Usage is kept by tenant and day: others' rows are written at the same time."""
    return user in str(operation["partition"]) or str(operation["document_id"]) == turn_id.rpartition(".")[2]
