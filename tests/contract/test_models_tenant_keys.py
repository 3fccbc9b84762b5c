"""Whose key a provider is called with: the tenant's own where it has stored one, else the operator's; on real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from serve_app.access.port import Saved
from serve_app.domain.access import ProviderKeyRecord
from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.errors import Internal, NotFound, ParleyError, StageUnavailable, UpstreamFailed
from serve_app.keys.ring import PROVIDER_KEYS, KeyRing, provider_place
from serve_app.models.config import AzureProviderConfig, ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.gateway import Gateway
from serve_app.models.tenant_keys import FRESH_S, StoredTenantKeys
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import Clock
from tests.simulators.models.wire_server import WAIT_S, Exchange, WireServer, error_body, reply, stream, text_events

OURS, ACMES = "sk-ours-0123456789", "sk-acmes-own-9876543210"
RING = KeyRing.parse("k" * 40)


class Records:
    """Stored keys, by tenant and provider. ``failure`` is raised instead of looking."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], ProviderKeyRecord] = {}
        self.failure: ParleyError | None = None
        self.asked = 0

    def put(self, tenant: str, key: str, origin: str, place: str | None = None) -> None:
        sealed = RING.sealer(PROVIDER_KEYS).seal(key, place or provider_place(tenant, "p", origin))
        now = datetime.now(UTC)
        self.kept[tenant, "p"] = ProviderKeyRecord(
            tenant_id=tenant, provider="p", origin=origin, sealed=sealed, last_four=key[-4:], changed_at=now
        )

    async def get_provider_key(self, tenant_id: str, provider: str) -> Saved[ProviderKeyRecord]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if (tenant_id, provider) not in self.kept:
            raise NotFound("There is no such record.")
        return Saved(self.kept[tenant_id, provider], "1")


class Bench:
    def __init__(self, server: WireServer, key: str | None) -> None:
        self.records, self.clock, self.server = Records(), Clock(), server
        self.origin = server.base_url.removesuffix("/v1")
        provider = OpenAIProviderConfig.model_validate(
            {"name": "p", "kind": "openai", "base_url": server.base_url, "api_key_env": "P_KEY", "max_retries": 0}
        )
        self.gateway = Gateway(
            ModelsConfig(providers=(provider,)),
            {"p": key},
            MemoryMetrics(),
            100_000,
            StoredTenantKeys(self.records, RING, clock=self.clock),
        )

    async def ask(self, tenant: str) -> str | None:
        """The credential that a call of the tenant's came with."""
        await self.gateway.generate(request(tenant), lambda _: None)
        return self.server.requests[-1].headers.get("authorization")


def request(tenant: str) -> ModelRequest:
    message = ModelMessage(role="user", content="Hi")
    return ModelRequest(messages=(message,), deadline=time.time() + WAIT_S, model_id="m", tenant_id=tenant)


@asynccontextmanager
async def open_bench(key: str | None = OURS) -> AsyncIterator[Bench]:
    async with WireServer(stream(*text_events("Hi"))) as server:
        bench = Bench(server, key)
        try:
            yield bench
        finally:
            await bench.gateway.aclose()


async def test_a_tenant_with_a_key_of_its_own_pays_itself_and_nobody_else_does() -> None:
    async with open_bench() as bench:
        bench.records.put("acme", ACMES, bench.origin)
        assert await bench.ask("acme") == f"Bearer {ACMES}"
        for other in ("globex", ""):
            assert await bench.ask(other) == f"Bearer {OURS}"
        assert await bench.ask("acme") == f"Bearer {ACMES}"


async def test_a_provider_that_the_operator_has_no_key_for_gets_the_tenants() -> None:
    async with open_bench(None) as bench:
        bench.records.put("acme", ACMES, bench.origin)
        assert await bench.ask("acme") == f"Bearer {ACMES}"
        assert await bench.ask("globex") is None


async def test_a_key_is_looked_up_once_in_a_while_and_a_deleted_one_is_used_no_longer() -> None:
    async with open_bench() as bench:
        bench.records.put("acme", ACMES, bench.origin)
        for _ in range(3):
            await bench.ask("acme")
            await bench.ask("globex")
        assert bench.records.asked == 2
        del bench.records.kept["acme", "p"]
        bench.clock.advance(FRESH_S)
        assert await bench.ask("acme") == f"Bearer {OURS}"


async def test_while_nobody_can_tell_no_one_elses_key_is_used() -> None:
    async with open_bench() as bench:
        bench.records.put("acme", ACMES, bench.origin)
        bench.records.failure = StageUnavailable("It is being replaced.")
        with pytest.raises(StageUnavailable):
            await bench.ask("acme")
        assert bench.server.requests == []
        bench.records.failure = None
        assert await bench.ask("acme") == f"Bearer {ACMES}"
        bench.records.failure = StageUnavailable("It is being replaced.")
        bench.clock.advance(FRESH_S)
        assert await bench.ask("acme") == f"Bearer {ACMES}", "known from before"


async def test_a_key_that_was_moved_from_another_tenant_is_not_used() -> None:
    async with open_bench() as bench:
        bench.records.put("acme", ACMES, bench.origin, place=provider_place("globex", "p", bench.origin))
        with pytest.raises(Internal):
            await bench.ask("acme")
        assert bench.server.requests == []


@pytest.mark.parametrize("place", ["as it was set", "as where the provider is now"])
async def test_a_key_is_sent_to_nobody_but_the_address_it_was_set_for(place: str) -> None:
    elsewhere = "https://api.openai.com"
    async with open_bench() as bench:
        if place == "as it was set":
            bench.records.put("acme", ACMES, elsewhere)
        else:
            bench.records.put("acme", ACMES, bench.origin, place=provider_place("acme", "p", elsewhere))
        with pytest.raises((UpstreamFailed, Internal)) as caught:
            await bench.ask("acme")
        assert not caught.value.retryable
        assert bench.server.requests == [], "neither by the tenant's key, nor by ours"
        assert (await bench.gateway.catalog()).origins == {"p": bench.origin}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_cookie_that_came_with_one_tenants_answer_does_not_go_out_with_anothers_call(host: str) -> None:
    async def with_cookie(exchange: Exchange) -> None:
        await exchange.head(set_cookie="session=of-acme; Path=/")
        for data in text_events("Hi"):
            await exchange.send(data)
        await exchange.end()

    async with WireServer(with_cookie) as server:
        address = server.base_url.replace("127.0.0.1", host)
        provider = OpenAIProviderConfig.model_validate({"name": "p", "kind": "openai", "base_url": address})
        gateway = Gateway(ModelsConfig(providers=(provider,)), {"p": OURS}, MemoryMetrics(), 100_000)
        for tenant in ("acme", "globex"):
            await gateway.generate(request(tenant), lambda _: None)
        await gateway.aclose()
    assert [each.headers.get("cookie") for each in server.requests] == [None, None]


async def test_a_refused_key_of_a_tenants_is_named_as_such_and_not_repeated() -> None:
    async with WireServer(reply(401, error_body(f"bad key {ACMES}"))) as server:
        bench = Bench(server, OURS)
        bench.records.put("acme", ACMES, bench.origin)
        with pytest.raises(UpstreamFailed) as caught:
            await bench.gateway.generate(request("acme"), lambda _: None)
        await bench.gateway.aclose()
    assert "your tenant's own key" in caught.value.message
    assert ACMES not in caught.value.message
    assert "P_KEY" not in caught.value.message


async def test_azure_gets_the_tenants_key_too() -> None:
    async with WireServer(stream(*text_events("Hi"))) as server:
        endpoint = server.base_url.removesuffix("/v1")
        provider = AzureProviderConfig.model_validate(
            {"name": "p", "kind": "azure", "endpoint": endpoint, "api_key_env": "P_KEY", "api_version": "2024-10-21",
             "models": [ModelConfig(id="m")]}
        )  # fmt: skip
        records = Records()
        records.put("acme", ACMES, endpoint)
        keys = StoredTenantKeys(records, RING)
        gateway = Gateway(ModelsConfig(providers=(provider,)), {"p": OURS}, MemoryMetrics(), 100_000, keys)
        for tenant, key in (("acme", ACMES), ("globex", OURS)):
            await gateway.generate(request(tenant), lambda _: None)
            assert server.requests[-1].headers["api-key"] == key
        await gateway.aclose()
