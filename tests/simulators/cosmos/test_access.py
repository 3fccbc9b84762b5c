"""Who is let in, and what those who are not are told."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import pytest
from azure.cosmos.aio import ContainerProxy, CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, connect, document
from tests.simulators.cosmos.simulator import CosmosSimulator


async def read_databases(client: CosmosClient) -> list[dict[str, Any]]:
    return [found async for found in client.list_databases()]


async def test_a_request_signed_with_the_key_is_let_in(client: CosmosClient) -> None:
    assert await read_databases(client) == []


async def test_either_key_of_the_account_is_let_in(sim: CosmosSimulator) -> None:
    second = base64.b64encode(b"second").decode()
    sim.gate.keys.append(second)
    async with connect(sim, second) as client:
        assert await read_databases(client) == []


async def test_a_wrong_key_is_told_that_the_token_cannot_serve_the_request(sim: CosmosSimulator) -> None:
    with pytest.raises(CosmosHttpResponseError, match="input authorization token can't serve the request") as refused:
        async with connect(sim, base64.b64encode(b"another").decode()) as client:
            await read_databases(client)
    assert refused.value.status_code == 401
    assert "Server used the following payload to sign" in str(refused.value)


async def test_a_request_without_a_signature_is_refused(sim: CosmosSimulator) -> None:
    async with aiohttp.ClientSession() as session, session.get(sim.endpoint + "dbs") as response:
        assert response.status == 401


@pytest.mark.parametrize("skew_s", [3600, -3600])
async def test_a_clock_off_by_an_hour_is_told_the_times(sim: CosmosSimulator, skew_s: float) -> None:
    sim.clock.skew(skew_s)
    with pytest.raises(
        CosmosHttpResponseError, match="The authorization token is not valid at the current time"
    ) as refused:
        async with connect(sim) as client:
            await read_databases(client)
    assert refused.value.status_code == 403
    assert "current server time" in str(refused.value)


async def test_a_clock_off_by_a_minute_is_borne(sim: CosmosSimulator) -> None:
    sim.clock.skew(60)
    async with connect(sim) as client:
        assert await read_databases(client) == []


async def test_the_firewall_names_the_address_it_blocks(sim: CosmosSimulator) -> None:
    sim.firewall = True
    with pytest.raises(CosmosHttpResponseError, match=r"Request originated from IP 127\.0\.0\.1") as refused:
        async with connect(sim) as client:
            await read_databases(client)
    assert refused.value.status_code == 403
    assert "blocked by your Cosmos DB account firewall settings" in str(refused.value)
    sim.firewall = False
    async with connect(sim) as client:
        assert await read_databases(client) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ms-unheard-of": "1"},
        {"x-ms-consistency-level": "Strong"},
        {"x-ms-version": "1999-01-01"},
        {"x-ms-documentdb-pre-trigger-include": "t"},
        {"Prefer": "PreferUnfilteredQueryResponse"},
    ],
)
async def test_a_header_that_is_not_known_is_refused(container: ContainerProxy, headers: dict[str, str]) -> None:
    with pytest.raises(CosmosHttpResponseError) as refused:
        await container.create_item(document("a"), headers=headers)
    assert refused.value.status_code == 400


async def test_a_route_that_is_not_known_is_refused(container: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError, match="does not model") as refused:
        await container.scripts.create_stored_procedure({"id": "p", "body": "function () {}"})
    assert refused.value.status_code == 400


async def test_a_mistake_of_the_simulator_is_no_status_that_a_client_repeats(
    sim: CosmosSimulator, container: ContainerProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CosmosHttpResponseError, match="The simulator failed") as error:
        await container.read_item("a", KEY, headers={"x-ms-session-token": "0:nonsense"})
    assert error.value.status_code == 400
    assert "the simulator failed at GET" in caplog.text


async def test_the_date_header_follows_the_clock_of_the_account(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.clock.skew(120)
    ahead = await container.create_item(document("a"))
    sim.clock.skew(0)
    level = await container.read_item("a", KEY)
    assert ahead.get_response_headers()["Date"] > level.get_response_headers()["Date"]
