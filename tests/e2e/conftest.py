"""One graph for the whole end-to-end suite; tests about starting and stopping have their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.azure import Azure
from tests.e2e.issuer import TENANT, Issuer
from tests.e2e.outside import Outside, companions, installed_peer
from tests.e2e.processes import free_port
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer, StartFailed

FOLDER = Path(__file__).parent
SCRIPT = FOLDER / "provider_script.yaml"
API_KEY = "sk-outside-the-graph"
TESTS_S = 240
"""For a test that starts a graph of its own; the first one also waits for the shared one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TESTS_S))


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """The account of the graph whose store is Azure's."""
    with Azure(tmp_path_factory.mktemp("azure")) as azure:
        yield azure


@pytest.fixture(scope="session", params=["local", "azure"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParleyServer]:
    """The development graph with the simulated provider, which follows ``provider_script.yaml``, over each store."""
    with contextlib.ExitStack() as stack:
        variables = {"PARLEY_COMPANIONS__SCRIPT": str(SCRIPT)}
        if request.param == "azure":
            # Leases as this store has them by default: each renewal is a write, and writes are counted.
            leases = {"PARLEY_TURN__LEASE_S": "15", "PARLEY_TURN__RENEW_S": "5"}
            variables |= leases | request.getfixturevalue("account").variables
        server = ParleyServer(tmp_path_factory.mktemp("graph"), variables=variables)
        stack.callback(server.kill)
        try:
            server.start()
        except StartFailed as failure:
            pytest.fail(f"the graph did not start: {failure}", pytrace=False)
        yield server
        server.stop()


on_azure = pytest.mark.parametrize("graph", ["azure"], indirect=True)
on_sqlite = pytest.mark.parametrize("graph", ["local"], indirect=True)
"""For tests about what the embedded store alone has, and those that no store makes a difference to."""


@pytest.fixture
async def api(graph: ParleyServer) -> AsyncIterator[Api]:
    """The HTTP API as a sales user of its own, so that no test sees another's conversations."""
    async with Api.as_new_user(graph.url) as client:
        yield client


@dataclass
class OutsideGraph:
    """A graph in production mode, which brings nothing along: provider, tool servers and whoever signs tokens are beside it;
    tests end the servers and start them.
    """

    server: ParleyServer
    provider_url: str
    crm: Outside
    everything: Outside | None
    aimock: Outside | None
    issuer: Issuer

    def as_new_user(self, roles: str = "sales", tenant: str = TENANT) -> AbstractAsyncContextManager[Api]:
        """Somebody with a token, whom nobody has seen before."""
        return self.issuer.as_new_user(self.server.url, roles, tenant)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideGraph]:
    """Started while its CRM server is down. The npm programs are there where they are installed."""
    folder = tmp_path_factory.mktemp("outside")
    provider_port, crm_port, everything_port, aimock_port = (free_port() for _ in range(4))
    script = str(FOLDER / "outside_script.yaml")
    crm = companions(folder, crm_port, "crm")
    everything = installed_peer(
        "@modelcontextprotocol/server-everything", "mcp-server-everything", ["streamableHttp"], folder,
        ready="listening on port", variables={"PORT": str(everything_port)},
    )  # fmt: skip
    aimock = installed_peer(
        "@copilotkit/aimock", "llmock", ["-p", str(aimock_port), "-f", str(FOLDER / "aimock_fixtures.json"), "--strict"],
        folder, ready="listening on",
    )  # fmt: skip
    servers = {
        "crm": {
            "type": "streamable-http",
            "url": f"http://127.0.0.1:{crm_port}/crm/mcp",
            "roles": ["sales"],
            "private": True,
        },
        "everything": {
            "type": "streamable-http",
            "url": f"http://127.0.0.1:{everything_port}/mcp",
            "roles": ["peers"],
            "private": True,
        },
    }
    (folder / "mcpservers.json").write_text(json.dumps({"mcpServers": servers}))
    issuer = Issuer(folder)
    server = ParleyServer(
        folder,
        variables={
            **issuer.variables,
            "PARLEY_LOG__DIR": str(folder / "data" / "logs"),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{provider_port}/v1",
            "OPENAI_API_KEY": API_KEY,
            "AIMOCK_URL": f"http://127.0.0.1:{aimock_port}/v1",
            "PARLEY_MODELS": str(FOLDER / "outside_models.yaml"),
            "PARLEY_MCP_SERVERS": str(folder / "mcpservers.json"),
            "PARLEY_COMPANIONS__TOOLS": "false",
            "PARLEY_TOOL__REFRESH_S": "1",
            "PARLEY_TOOL__RETRY_MAX_S": "2",
        },
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(companions(folder, provider_port, "provider", "--script", script, "--api-key", API_KEY))
        for peer in (everything, aimock):
            if peer is not None:
                stack.enter_context(peer)
        stack.callback(crm.kill)
        stack.callback(server.kill)
        server.start()
        asyncio.run(issuer.open_to_all(server.url))
        yield OutsideGraph(server, f"http://127.0.0.1:{provider_port}", crm, everything, aimock, issuer)
        server.stop()
