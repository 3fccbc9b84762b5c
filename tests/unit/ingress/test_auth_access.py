"""Local accounts from end to end: an administrator lets somebody in, who logs in, works, and is let out again.

The whole application over a store in memory, with the access records and the administration that production has.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import SecretStr

from serve_app.access.administration import Administration
from serve_app.access.resolver import AccessResolver
from serve_app.credentials import Secrets
from serve_app.identity.connect import connect
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.keys.connect import open_keys
from serve_app.settings import AuthSettings, Settings
from tests.unit.accounts.bench import PASSWORD, Bench
from tests.unit.ingress.asgi import Client, Reply
from tests.unit.ingress.stages import Stages

OPERATOR = "an operator's token of enough characters"


class World:
    def __init__(self, stages: Stages) -> None:
        self.settings = Settings(store="memory", mode="production", auth=AuthSettings(mode="accounts"))
        self.bench = Bench(self.settings.auth, stages.store)
        self.bench.clock.now = time.time()
        self.stages = stages

    async def open(self) -> None:
        access = AccessResolver(self.bench.directory)
        made = {
            **vars(self.stages.services(self.settings)),
            "authenticator": connect(self.settings, access, await self.bench.accounts.jwks()),
            "accounts": self.bench.accounts,
            "administration": Administration.over(self.bench.directory, open_keys(Secrets())),
            "admin_token": SecretStr(OPERATOR),
        }
        self.client = Client(create_app(IngressServices(**made)))

    async def ask(self, method: str, path: str, body: Any = None, *, token: str = "", query: str = "") -> Reply:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, path, body, headers=headers, query=query)

    async def admin(self, method: str, path: str, body: Any = None, query: str = "tenant_id=contoso") -> Reply:
        return await self.ask(method, f"/api/admin{path}", body, token=OPERATOR, query=query)

    async def let_in(self, user_id: str) -> str:
        """A user of Contoso with a password; their access token."""
        made = await self.admin("POST", "/users", {"user_id": user_id, "roles": ["sales"]})
        assert made.status in {200, 201}, made.body
        issued = await self.admin("POST", f"/users/{user_id}/reset", {"login": f"{user_id}@contoso.example"})
        assert issued.status in {200, 201}, issued.body
        chosen = {"token": issued.json()["token"], "new_password": PASSWORD}
        assert (await self.ask("POST", "/api/auth/reset", chosen)).status == 204
        token: str = (await self.login(user_id)).json()["access_token"]
        return token

    async def login(self, user_id: str) -> Reply:
        body = {"login": f"{user_id}@contoso.example", "password": PASSWORD, "cookie": False}
        return await self.ask("POST", "/api/auth/login", body)


@pytest.fixture
async def world(stages: Stages) -> World:
    made = World(stages)
    await made.open()
    assert (await made.admin("POST", "/tenants", {"tenant_id": "contoso"}, query="")).status in {200, 201}
    return made


async def test_somebody_is_let_in_and_is_who_the_records_say(world: World) -> None:
    token = await world.let_in("ana")
    who = await world.ask("GET", "/api/authz", token=token)
    assert who.status == 200
    view = who.json()
    assert (view["tenant_id"], view["user_id"], view["roles"]) == ("contoso", "ana", ["sales"])


async def test_a_disabled_user_is_out_with_the_next_request_although_the_token_is_good(world: World) -> None:
    token = await world.let_in("ana")
    bob = await world.let_in("bob")
    assert (await world.admin("PATCH", "/users/ana", {"disabled": True})).status == 200
    assert (await world.ask("GET", "/api/authz", token=token)).status == 403
    assert (await world.ask("POST", "/api/auth/ws-ticket", token=token)).status == 403
    assert (await world.ask("GET", "/api/authz", token=bob)).status == 200


async def test_a_deleted_user_is_out_and_cannot_log_in(world: World) -> None:
    token = await world.let_in("ana")
    assert (await world.admin("DELETE", "/users/ana")).status == 204
    assert (await world.ask("GET", "/api/authz", token=token)).status == 403
    assert (await world.login("ana")).status == 401


async def test_the_operators_token_is_nobody_outside_administration(world: World) -> None:
    assert (await world.ask("GET", "/api/authz", token=OPERATOR)).status == 401
    assert (await world.ask("POST", "/api/auth/ws-ticket", token=OPERATOR)).status == 401


async def test_in_production_headers_choose_nobody(world: World) -> None:
    headers = {"x-dev-user": "ana", "x-dev-tenant": "contoso", "x-dev-roles": "admin,platform-admin"}
    for method, path in (("GET", "/api/authz"), ("GET", "/api/conversations"), ("GET", "/api/admin/tenants")):
        assert (await world.client.request(method, path, headers=headers)).status == 401
