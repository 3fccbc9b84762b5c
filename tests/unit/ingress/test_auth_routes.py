"""``/api/auth`` as browsers and programs see it: over the whole application, with local accounts behind."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from http.cookies import SimpleCookie
from typing import Any

import pytest

from serve_app.domain.access import TenantRecord
from serve_app.domain.identity import Identity, Principal
from serve_app.identity.connect import connect
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.settings import AuthSettings, LimitSettings, Settings
from tests.unit.accounts.bench import LOGIN, OTHER_PASSWORD, PASSWORD, TENANT, USER, Bench
from tests.unit.ingress.asgi import Client, Reply, Socket
from tests.unit.ingress.stages import Stages


class Users:
    """Access, as far as this needs it."""

    def __init__(self) -> None:
        self.roles: tuple[str, ...] = ("sales",)

    async def resolve(self, identity: Identity) -> Principal:
        return Principal(tenant_id=identity.tenant, user_id=identity.subject, roles=self.roles)


class World:
    """An application with local accounts, and one of them."""

    def __init__(self, stages: Stages, **settings: Any) -> None:
        self.stages = stages
        self.settings = Settings(store="memory", auth=AuthSettings(mode="accounts"), **settings)
        self.bench = Bench(self.settings.auth, stages.store)

    async def open(self) -> None:
        self.bench.clock.now = time.time()
        await self.bench.directory.save_tenant(TenantRecord(tenant_id=TENANT))
        await self.bench.add_account()
        authenticator = connect(self.settings, Users(), await self.bench.accounts.jwks())
        made = {**vars(self.stages.services(self.settings)), "authenticator": authenticator}
        self.services = IngressServices(**{**made, "accounts": self.bench.accounts})
        self.client = Client(create_app(self.services))

    async def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request("POST", f"/api/auth/{path}", body, headers=sent)

    async def login(self, **more: Any) -> Reply:
        return await self.post("login", {"login": LOGIN, "password": PASSWORD} | more)


@pytest.fixture
async def world(stages: Stages) -> World:
    made = World(stages)
    await made.open()
    return made


def cookie_of(reply: Reply) -> Any:
    [morsel] = SimpleCookie(reply.headers["set-cookie"]).values()
    return morsel


def cookie_header(reply: Reply) -> str:
    morsel = cookie_of(reply)
    return f"{morsel.key}={morsel.value}"


async def test_a_browser_logs_in_and_its_token_is_somebody(world: World) -> None:
    reply = await world.login()
    assert reply.status == 200
    view = reply.json()
    assert (view["token_type"], view["expires_in_s"], view["refresh_token"]) == ("Bearer", 900, None)
    assert reply.headers["cache-control"] == "no-store"
    who = await world.client.request("GET", "/api/authz", headers={"authorization": f"Bearer {view['access_token']}"})
    assert (who.status, who.json()["tenant_id"], who.json()["user_id"]) == (200, TENANT, USER)


async def test_the_refresh_cookie_is_for_these_addresses_and_no_script(world: World) -> None:
    cookie = cookie_of(await world.login())
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/api/auth", True, "strict")
    assert int(cookie["max-age"]) == 14 * 86_400
    assert cookie["domain"] == ""
    assert (cookie.key, cookie["secure"]) == ("parley_refresh", "")


async def test_in_production_the_cookie_travels_over_tls_only(stages: Stages) -> None:
    world = World(stages, mode="production")
    await world.open()
    cookie = cookie_of(await world.login())
    assert (cookie.key, cookie["secure"]) == ("__Secure-parley_refresh", True)
    left = await world.post("refresh", cookie=f"parley_refresh={cookie.value}")
    assert left.status == 401
    assert (await world.post("refresh", cookie=f"{cookie.key}={cookie.value}")).status == 200


async def test_a_browser_stays_logged_in_by_its_cookie(world: World) -> None:
    first = await world.login()
    second = await world.post("refresh", cookie=cookie_header(first))
    assert second.status == 200
    assert second.json()["refresh_token"] is None
    assert cookie_of(second).value != cookie_of(first).value
    world.bench.clock.now += 60
    assert (await world.post("refresh", cookie=cookie_header(first))).status == 401, "it was used before"
    assert (await world.post("refresh", cookie=cookie_header(second))).status == 401, "so its session is over"


async def test_a_program_gets_the_refresh_token_in_the_body_and_no_cookie(world: World) -> None:
    reply = await world.login(cookie=False)
    assert "set-cookie" not in reply.headers
    refreshed = await world.post("refresh", {"refresh_token": reply.json()["refresh_token"]})
    assert refreshed.status == 200
    assert refreshed.json()["refresh_token"]
    assert "set-cookie" not in refreshed.headers


async def test_a_page_of_another_site_cannot_use_the_cookie(world: World) -> None:
    cookie = cookie_header(await world.login())
    for origin in ("https://evil.example", "null", "http://testserver.evil.example", "http://testserver:81"):
        refused = await world.post("refresh", cookie=cookie, origin=origin)
        assert refused.status == 403
        assert "set-cookie" not in refused.headers
        assert (await world.post("logout", cookie=cookie, origin=origin)).status == 403
    assert (await world.post("refresh", cookie=cookie, origin="http://testserver")).status == 200


async def test_a_slash_too_many_sends_no_password_elsewhere(stages: Stages) -> None:
    """Behind a proxy that ends TLS, a redirect would lead to http."""
    world = World(stages, mode="production")
    await world.open()
    for path in ("login/", "refresh/"):
        reply = await world.post(path, {"login": LOGIN, "password": PASSWORD}, host="chat.example")
        assert (reply.status, reply.headers.get("location")) == (404, None)


async def test_half_a_character_in_a_password_is_a_wrong_password(world: World) -> None:
    assert (await world.login(password="\ud800" + PASSWORD)).status == 401


async def test_whoever_logs_out_is_out_and_the_cookie_is_gone(world: World) -> None:
    cookie = cookie_header(await world.login())
    reply = await world.post("logout", cookie=cookie)
    assert reply.status == 204
    assert cookie_of(reply)["max-age"] == "0"
    assert cookie_of(reply)["path"] == "/api/auth"
    assert (await world.post("refresh", cookie=cookie)).status == 401
    assert (await world.post("logout")).status == 204


async def test_a_refusal_says_the_same_for_every_name(world: World) -> None:
    replies = [
        await world.post("login", {"login": name, "password": "wrong password"})
        for name in (LOGIN, "nobody@contoso.example", "a b", "é")
    ]
    bodies = {json.dumps({**reply.json(), "request_id": ""}) for reply in replies}
    assert {reply.status for reply in replies} == {401}
    assert len(bodies) == 1


async def test_refresh_without_any_token_is_nobody(world: World) -> None:
    assert (await world.post("refresh")).status == 401
    assert (await world.post("refresh", {})).status == 401
    assert (await world.post("refresh", cookie="parley_refresh=nonsense")).status == 401


async def test_a_password_is_changed_with_the_old_one_and_reset_with_a_one_time_token(world: World) -> None:
    old = cookie_header(await world.login())
    body = {"login": LOGIN, "password": PASSWORD, "new_password": OTHER_PASSWORD}
    changed = await world.post("password", body)
    assert changed.status == 200
    assert (await world.post("refresh", cookie=old)).status == 401
    assert (await world.post("refresh", cookie=cookie_header(changed))).status == 200
    issued = await world.bench.accounts.issue_reset(TENANT, USER, LOGIN)
    short = await world.post("reset", {"token": issued.token, "new_password": "short"})
    assert short.status == 422
    assert (await world.post("reset", {"token": issued.token, "new_password": PASSWORD})).status == 204
    assert (await world.post("reset", {"token": issued.token, "new_password": PASSWORD})).status == 401
    assert (await world.login()).status == 200


@pytest.mark.parametrize(
    "more", [{"roles": ["admin"]}, {"tenant_id": "fabrikam"}, {"user_id": "root"}, {"is_admin": True}]
)
async def test_nobody_gives_themselves_anything_while_logging_in(world: World, more: dict[str, Any]) -> None:
    assert (await world.login(**more)).status == 422


async def test_the_keys_are_published_and_nothing_private_with_them(world: World) -> None:
    reply = await world.client.request("GET", "/api/auth/jwks")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/jwk-set+json")
    assert reply.headers["cache-control"] == "public, max-age=300"
    for key in reply.json()["keys"]:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}


async def test_a_page_learns_how_one_logs_in_before_anybody_has(world: World, client: Client) -> None:
    reply = await world.client.request("GET", "/api/auth")
    assert (reply.status, reply.json()) == (200, {"mode": "accounts"})
    assert (await client.request("GET", "/api/auth")).json() == {"mode": "development"}


async def test_one_address_cannot_try_a_password_at_every_account(stages: Stages) -> None:
    world = World(stages, limits=LimitSettings(forwarded_hops=1))
    await world.open()
    tried = [
        await world.post("login", {"login": f"user-{n}", "password": PASSWORD}, x_forwarded_for="192.0.2.1")
        for n in range(61)
    ]
    assert [reply.status for reply in tried] == [401] * 60 + [429]
    assert int(tried[-1].headers["retry-after"]) >= 1
    elsewhere = await world.post("login", {"login": LOGIN, "password": PASSWORD}, x_forwarded_for="192.0.2.2")
    assert elsewhere.status == 200


# -- tickets ---------------------------------------------------------------------------------------------------------


async def test_a_browser_opens_its_socket_with_a_ticket_once(world: World) -> None:
    token = (await world.login()).json()["access_token"]
    reply = await world.post("ws-ticket", authorization=f"Bearer {token}")
    assert reply.status == 200
    ticket = reply.json()["ticket"]
    assert reply.json()["expires_in_s"] == 30
    async with world.client.socket(query={"ticket": ticket}) as socket:
        assert (await socket.accepted())["type"] == "connection.ack"
        created = await socket.open_session()
        assert created["user_id"] == USER
    async with world.client.socket(query={"ticket": ticket}) as again:
        assert await closed(again) in {401, 4401}


async def closed(socket: Socket) -> int:
    """The status or code by which a socket was refused."""
    while True:
        message = await socket.message()
        if message["type"] == "websocket.close" or "status" in message:
            return int(message["code"] if "code" in message else message["status"])


async def test_a_ticket_needs_a_token(world: World) -> None:
    assert (await world.post("ws-ticket")).status == 401
    cookie = cookie_header(await world.login())
    assert (await world.post("ws-ticket", cookie=cookie)).status == 401, "the cookie is for sessions alone"


async def test_in_development_there_are_tickets_and_no_accounts(client: Client) -> None:
    ticket = await client.request("POST", "/api/auth/ws-ticket")
    assert ticket.status == 200
    missing = (await client.request("POST", "/api/nothing/here", {})).json()
    for path, body in (
        ("login", {"login": LOGIN, "password": PASSWORD}),
        ("refresh", {}),
        ("logout", {}),
        ("password", {"login": LOGIN, "password": PASSWORD, "new_password": PASSWORD}),
        ("reset", {"token": "x", "new_password": PASSWORD}),
    ):
        reply = await client.request("POST", f"/api/auth/{path}", body)
        assert {**reply.json(), "request_id": ""} == {**missing, "request_id": ""}, path
    assert (await client.request("GET", "/api/auth/jwks")).status == 404


# -- nothing of it is said anywhere ----------------------------------------------------------------------------------


async def test_no_secret_is_repeated_in_an_answer_or_a_log(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-4f1d9c-canary"
    caplog.set_level(logging.DEBUG)
    replies = [
        await world.post("login", {"login": LOGIN, "password": canary}),
        await world.post("login", {"login": LOGIN, "password": [canary]}),
        await world.post("login", {"login": LOGIN, "password": canary * 20}),
        await world.post("login", {"login": LOGIN, "password": PASSWORD, canary[:8]: 1, "more": canary}),
        await world.post("password", {"login": LOGIN, "password": PASSWORD, "new_password": canary[:8]}),
        await world.post("reset", {"token": canary, "new_password": canary}),
        await world.post("refresh", {"refresh_token": canary}),
        await world.post("refresh", cookie=f"parley_refresh={canary}"),
        await world.post("ws-ticket", authorization=f"Bearer {canary}"),
        await world.post("ws-ticket", authorization=f"Basic {canary}"),
    ]
    async with world.client.socket(query={"ticket": canary}) as socket:
        refusal = await socket.message()
    replies_text = b"".join(reply.body for reply in replies).decode() + str(refusal)
    printed = capsys.readouterr()
    for text in (replies_text, caplog.text, printed.out, printed.err):
        assert canary not in text
    assert all(reply.status in {401, 422} for reply in replies)


async def test_ten_wrong_passwords_at_once_leave_other_requests_alone(world: World) -> None:
    wrong = [world.post("login", {"login": "nobody", "password": "wrong password"}) for _ in range(10)]
    outcomes = await asyncio.gather(*wrong, world.client.request("GET", "/health"))
    assert {outcome.status for outcome in outcomes[:-1]} <= {401, 503}
    assert outcomes[-1].status == 200
