"""What an operator sees: metrics at Ray's endpoint, and one request id through the logs of every stage."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid

import httpx2

from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer

EXPORTED_WITHIN_S = 60.0
"""Workers report every ten seconds."""


async def exported(graph: ParleyServer, *wanted: str) -> str:
    """The metrics page, once all of ``wanted`` are on it or it is too late for them."""
    page = ""
    until = time.monotonic() + EXPORTED_WITHIN_S
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        while not all(re.search(pattern, page) for pattern in wanted) and time.monotonic() < until:
            page = (await http.get(graph.metrics_url)).text
            await asyncio.sleep(0.5)
    return page


async def test_turns_tokens_tools_and_latencies_are_exported(graph: ParleyServer, api: Api) -> None:
    await api.chat("Look it up", model_id="parallel-tools")
    await api.chat("Try", model_id="bad-arguments")
    wanted = [
        r'ray_parley_turns_total\{[^}]*outcome="completed"[^}]*\} [1-9]',
        r"ray_parley_turn_ms_(bucket|sum|count)",
        r"ray_parley_first_delta_ms_count\{[^}]*\} [1-9]",
        r'ray_parley_tokens_total\{[^}]*direction="output"[^}]*\} [1-9]',
        r'ray_parley_tool_calls_total\{[^}]*tool="crm.find_account"[^}]*\} [1-9]',
        r"ray_parley_tool_ms_count",
        r"ray_parley_stage_ms_count\{[^}]*stage=",
        r"ray_parley_model_calls_total",
        r'ray_parley_tool_servers_up\{[^}]*server="crm"[^}]*\} 1',
        r'ray_parley_http_requests_total\{[^}]*route="/api/chat"[^}]*status="200"',
        r"ray_parley_append_ms_count",
    ]
    page = await exported(graph, *wanted)
    assert [pattern for pattern in wanted if not re.search(pattern, page)] == []
    assert api.user not in page, "who somebody is does not belong into a label"


async def test_one_request_id_is_in_the_logs_of_ingress_and_turns(graph: ParleyServer, api: Api) -> None:
    request_id = f"trace-{uuid.uuid4().hex}"
    async with api.posting("Find the account Contoso", headers={"X-Request-Id": request_id}) as response:
        await response.aread()
    parts: set[str] = set()
    async with asyncio.timeout(20):
        while not {"ingress", "turns.stage"} <= parts:
            lines = [json.loads(line) for line in graph.logs() if request_id in line]
            assert all(line["request_id"] == request_id for line in lines)
            parts = {line["part"] for line in lines}
            await asyncio.sleep(0.2)


async def test_logs_are_json_lines_and_hold_nothing_that_was_said(graph: ParleyServer, api: Api) -> None:
    secret = f"xyzzy{uuid.uuid4().hex}"
    await api.chat(f"Find the account {secret}")
    lines = graph.logs()
    assert lines
    for line in lines:
        entry = json.loads(line)
        assert {"event", "level", "timestamp"} <= entry.keys()
    assert not [line for line in lines if secret in line]
