"""Tokens verified with keys that come over a real socket, through everything an issuer's server may do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.domain.identity import Identity, Principal
from serve_app.errors import Overloaded, Unauthenticated
from serve_app.identity.connect import connect
from serve_app.identity.jwks import CachedKeys, Freshness, from_url
from serve_app.identity.key_set import MAX_SET_BYTES
from serve_app.identity.port import Authenticator
from serve_app.settings import AuthSettings, Settings
from tests.simulators.identity.key_server import KeyServer
from tests.unit.identity.forge import AUDIENCE, ISSUER, good_claims, good_header, jwk, key_set, rs256, rsa_key

TIMEOUT_S = 3.0


class Everybody:
    async def resolve(self, identity: Identity) -> Principal:
        return Principal(tenant_id=identity.tenant, user_id=identity.subject, roles=identity.roles)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer(key_set(jwk(rsa_key("issuer")))).running() as running:
        yield running


def authenticator(server: KeyServer, **more: Any) -> Authenticator:
    auth = AuthSettings(mode="jwt", issuer=ISSUER, audience=AUDIENCE, jwks=server.url, **more)
    return connect(Settings(auth=auth), Everybody())


def cached(server: KeyServer, clock: Clock) -> CachedKeys:
    freshness = Freshness(ttl_s=100, stale_s=1_000, min_refetch_s=10, timeout_s=TIMEOUT_S)
    return CachedKeys(from_url(server.url, TIMEOUT_S), freshness, clock)


def token(kid: str = "key-1", key: str = "issuer") -> str:
    now = time.time()
    return rs256(good_header(kid=kid), good_claims(iat=now, nbf=now, exp=now + 60), rsa_key(key))


async def test_a_token_is_somebody_with_keys_that_are_fetched_once(server: KeyServer) -> None:
    asked = authenticator(server)
    assert server.requests == 0, "an issuer that is away is no reason not to start"
    for _ in range(5):
        grant = await asked.authenticate({"authorization": f"Bearer {token()}"}, {})
    assert grant.principal == Principal(tenant_id="contoso", user_id="ana", roles=("sales",))
    assert server.requests == 1


async def test_made_up_key_names_do_not_become_requests_to_the_issuer(server: KeyServer) -> None:
    asked = authenticator(server)
    for n in range(30):
        with pytest.raises(Unauthenticated):
            await asked.with_token(token(f"made-up-{n}", "attacker"))
    assert server.requests == 1


async def test_an_issuer_changes_its_key_while_tokens_of_both_are_out(server: KeyServer) -> None:
    clock = Clock()
    keys = cached(server, clock)
    assert await keys.find("key-1") is not None
    server.text = key_set(jwk(rsa_key("issuer 2"), "key-2"), jwk(rsa_key("issuer")))
    clock.now = 10
    assert await keys.find("key-2") is not None
    assert await keys.find("key-1") is not None
    server.text = key_set(jwk(rsa_key("issuer 2"), "key-2"))
    clock.now = 110
    assert await keys.find("key-1") is None
    assert await keys.find("key-2") is not None
    assert server.requests == 3


async def test_keys_outlive_a_server_that_is_gone_and_are_read_from_the_next() -> None:
    clock = Clock()
    server = KeyServer(key_set(jwk(rsa_key("issuer"))))
    async with server.running():
        keys = cached(server, clock)
        assert await keys.find("key-1") is not None
    clock.now = 500
    assert await keys.find("key-1") is not None
    clock.now = 1_000
    with pytest.raises(Overloaded):
        await keys.find("key-1")
    server.text = key_set(jwk(rsa_key("issuer 2"), "key-2"))
    async with server.running(server.port):
        clock.now = 1_010
        assert await keys.find("key-2") is not None


@pytest.mark.parametrize("status", [204, 301, 302, 307, 401, 404, 429, 500, 503])
async def test_only_a_plain_answer_is_taken_and_a_redirect_is_none(server: KeyServer, status: int) -> None:
    async with KeyServer(server.text).running() as elsewhere:
        server.status = status
        server.headers = {"location": elsewhere.url}
        with pytest.raises(Overloaded):
            await cached(server, Clock()).find("key-1")
        assert elsewhere.requests == 0


async def test_a_server_that_does_not_answer_is_given_up(server: KeyServer) -> None:
    server.hold.clear()
    with pytest.raises(Overloaded):
        await cached(server, Clock()).find("key-1")


async def test_a_server_that_sends_byte_by_byte_is_given_up(server: KeyServer) -> None:
    server.drip = True
    with pytest.raises(Overloaded):
        await cached(server, Clock()).find("key-1")


async def test_an_answer_without_end_is_cut_off(server: KeyServer) -> None:
    server.endless = True
    with pytest.raises(Overloaded):
        await cached(server, Clock()).find("key-1")
    # What was sent and not read is what sockets hold, not what a patient reader would have taken.
    assert server.sent_bytes < MAX_SET_BYTES + 16 * 2**20


@pytest.mark.parametrize("text", [b"", b"<html>", b"{}", b'{"keys":[]}', b"\x00" * 1_000])
async def test_an_answer_that_is_no_key_set_is_no_answer(server: KeyServer, text: bytes) -> None:
    server.text = text
    with pytest.raises(Overloaded):
        await cached(server, Clock()).find("key-1")


async def test_while_the_issuer_is_away_nobody_is_told_that_they_are_wrong(server: KeyServer) -> None:
    """A 401 would log everybody out; 503 says to come back."""
    server.status = 503
    with pytest.raises(Overloaded) as refused:
        await authenticator(server).with_token(token())
    assert refused.value.status == 503
    assert refused.value.retry_after_s
