"""The example MCP servers as the real mcp SDK sees them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent

from serve_app.companions.server import CompanionServer, CompanionSettings

CONFIG = Path(__file__).parents[3] / "configs" / "mcpservers.json"


@pytest.fixture
async def companions() -> AsyncIterator[CompanionServer]:
    async with CompanionServer(CompanionSettings(port=0)) as server:
        yield server


def said(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_listed_with_descriptions_and_hints(
    companions: CompanionServer, mode: Literal["auto", "legacy"]
) -> None:
    found: dict[str, Any] = {}
    for name in ("crm", "hr"):
        async with Client(f"{companions.url}/{name}/mcp", mode=mode) as client:
            found |= {f"{name}.{tool.name}": tool for tool in (await client.list_tools()).tools}
    assert sorted(found) == [
        "crm.find_account",
        "crm.get_opportunity",
        "crm.list_opportunities",
        "crm.update_opportunity",
        "hr.find_employee",
        "hr.get_leave_balance",
        "hr.list_departments",
    ]
    assert all(tool.description and tool.output_schema for tool in found.values())
    assert [name for name, tool in found.items() if not tool.annotations.read_only_hint] == ["crm.update_opportunity"]


async def test_a_call_answers_with_structured_content(companions: CompanionServer) -> None:
    async with Client(f"{companions.url}/crm/mcp") as client:
        result = await client.call_tool("list_opportunities", {"account": "Contoso"})
    assert not result.is_error
    content = result.structured_content
    assert content is not None
    assert (content["account"], content["total"]) == ("Contoso", 4)
    assert {one["id"] for one in content["opportunities"]} == {"OPP-1001", "OPP-1002", "OPP-1003", "OPP-1004"}
    assert json.loads(said(result)) == content


async def test_a_change_is_seen_by_the_next_call(companions: CompanionServer) -> None:
    async with Client(f"{companions.url}/crm/mcp") as client:
        change = {"id": "OPP-1001", "stage": "Closed Won", "amount": 1, "close_date": "2027-01-02"}
        changed = await client.call_tool("update_opportunity", change)
        read = await client.call_tool("get_opportunity", {"id": "OPP-1001"})
    assert changed.structured_content == read.structured_content
    assert read.structured_content is not None
    assert {key: read.structured_content[key] for key in change} == change


@pytest.mark.parametrize(
    ("server", "tool", "arguments", "says"),
    [
        ("crm", "find_account", {"name": "Contso"}, "No account matches 'Contso'; did you mean Contoso?"),
        ("crm", "list_opportunities", {"account": "Coho"}, "Several accounts match 'Coho'"),
        ("crm", "get_opportunity", {"id": "OPP-1"}, "There is no opportunity 'OPP-1'"),
        ("crm", "update_opportunity", {"id": "OPP-1001"}, "Nothing to change"),
        ("crm", "update_opportunity", {"id": "OPP-1001", "stage": "Won"}, "Prospecting"),
        ("hr", "find_employee", {}, "Give the name of a person or of a department."),
        ("hr", "get_leave_balance", {"name": "Maria Kellr"}, "did you mean Maria Keller?"),
        ("hr", "get_leave_balance", {}, "Give the id or the name of an employee."),
    ],
)
async def test_a_mistake_is_a_tool_error_that_helps(
    companions: CompanionServer, server: str, tool: str, arguments: dict[str, Any], says: str
) -> None:
    async with Client(f"{companions.url}/{server}/mcp") as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert says in said(result)


async def test_staff_are_found_by_name_and_department(companions: CompanionServer) -> None:
    async with Client(f"{companions.url}/hr/mcp") as client:
        person, team, leave, departments = await asyncio.gather(
            client.call_tool("find_employee", {"name": "keller", "department": "engineering"}),
            client.call_tool("find_employee", {"department": "Legal"}),
            client.call_tool("get_leave_balance", {"employee_id": "EMP-001"}),
            client.call_tool("list_departments", {}),
        )
    assert "Maria Keller" in said(person)
    assert team.structured_content is not None
    assert team.structured_content["total"] == 25
    assert leave.structured_content is not None
    assert leave.structured_content["remaining_days"] == 7.5
    assert departments.structured_content is not None
    assert len(departments.structured_content["departments"]) == 8


async def test_a_foreign_host_header_is_refused(companions: CompanionServer) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{companions.url}/crm/mcp", headers={"host": "evil.example", "accept": "application/json"}, json={}
        )
    assert answer.status_code == 421


async def test_hosting_the_servers_leaves_logging_alone() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    async with CompanionServer(CompanionSettings(port=0)):
        assert (list(root.handlers), root.level) == before


async def test_the_shipped_configuration_names_these_servers_and_tools(companions: CompanionServer) -> None:
    servers = json.loads(CONFIG.read_text())["mcpServers"]
    assert sorted(servers) == ["crm", "hr"]
    for name, server in servers.items():
        url = re.sub(r"\$\{PARLEY_COMPANIONS__PORT:-\d+\}", str(companions.port), server["url"])
        url = re.sub(r"\$\{PARLEY_COMPANIONS__HOST:-([\d.]+)\}", r"\1", url)
        async with Client(url) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(server["idempotent_tools"]) <= tools.keys(), name
