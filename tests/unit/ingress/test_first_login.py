"""A new installation with local accounts, over HTTP only: from the platform's token to a tenant's administrator and its users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.accounts.connect import connect as open_accounts
from serve_app.credentials import Secrets
from serve_app.identity.connect import connect as open_authenticator
from serve_app.settings import AuthSettings, Settings
from tests.unit.ingress.admin_bench import AdminBench
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.test_sse import asking

PASSWORD = "a long and quiet evening"


@pytest.fixture
async def bench(tmp_path: Path) -> AdminBench:
    settings = Settings(data_dir=tmp_path, auth=AuthSettings(mode="accounts"))
    bench = AdminBench()
    accounts = open_accounts(settings, Secrets(), bench.stages.store, bench.directory)
    assert accounts is not None
    bench.more = {
        "settings": settings,
        "accounts": accounts,
        "authenticator": open_authenticator(settings, bench.access, await accounts.jwks()),
    }
    bench.app = bench.make_app(None)
    await bench.make_tenants()
    return bench


async def logged_in(bench: AdminBench, by: Client, user_id: str, query: str = "", **fields: Any) -> Client:
    """A user made, given a password and logged in, all by what ``by`` may do."""
    made = await by.request("POST", "/api/admin/users", {"user_id": user_id, **fields}, query=query)
    assert made.status == 201, made.body
    offer = (await by.request("POST", f"/api/admin/users/{user_id}/reset", {}, query=query)).json()
    nobody = Client(bench.app)
    body = {"token": offer["token"], "new_password": PASSWORD}
    assert (await nobody.request("POST", "/api/auth/reset", body)).status < 300
    login = {"login": offer["login"], "password": PASSWORD, "cookie": False}
    tokens = (await nobody.request("POST", "/api/auth/login", login)).json()
    return Client(bench.app, {"authorization": f"Bearer {tokens['access_token']}"})


async def test_an_installation_grows_from_the_platforms_token(bench: AdminBench) -> None:
    boss = await logged_in(bench, bench.operator, "boss", "tenant_id=acme", roles=["admin"])
    me = (await boss.request("GET", "/api/authz")).json()
    assert (me["tenant_id"], me["user_id"], me["roles"]) == ("acme", "boss", ["admin"])
    ana = await logged_in(bench, boss, "ana", roles=["sales"])
    assert (await ana.request("GET", "/api/admin/users")).status == 403
    assert (await boss.request("GET", "/api/admin/users", query="tenant_id=globex")).status == 404
    assert (await boss.request("POST", "/api/admin/tenants", {"tenant_id": "mine"})).status == 403
    listed = (await boss.request("GET", "/api/admin/users")).json()["items"]
    assert [user["user_id"] for user in listed] == ["ana", "boss"]


async def test_what_is_changed_counts_for_tokens_that_are_out_already(bench: AdminBench) -> None:
    ana = await logged_in(bench, bench.operator, "ana", "tenant_id=acme", roles=["sales"])

    async def change(path: str, body: dict[str, Any]) -> None:
        reply = await bench.operator.request("PATCH", f"/api/admin{path}", body, query="tenant_id=acme")
        assert reply.status == 200, reply.body

    await change("/users/ana", {"roles": ["hr"], "denied_tools": ["crm"]})
    me = (await ana.request("GET", "/api/authz")).json()
    assert (me["roles"], me["terms"]["denied_tools"]) == (["hr"], ["crm"])
    for path, lost, again in (
        ("/users/ana", {"disabled": True}, {"disabled": False}),
        ("/tenants/acme", {"disabled": True}, {"disabled": False}),
    ):
        await change(path, lost)
        refused = await ana.request("GET", "/api/conversations")
        assert (refused.status, refused.json()["code"]) == (403, "not_permitted")
        await change(path, again)
        assert (await ana.request("GET", "/api/conversations")).status == 200
    await bench.operator.request("DELETE", "/api/admin/users/ana", query="tenant_id=acme")
    assert (await ana.request("GET", "/api/conversations")).status == 403


async def test_a_user_made_anew_does_not_get_the_password_of_the_one_before(bench: AdminBench) -> None:
    before = await logged_in(bench, bench.operator, "ana", "tenant_id=acme", roles=["sales"])
    await bench.operator.request("DELETE", "/api/admin/users/ana", query="tenant_id=acme")
    made = await bench.operator.request("POST", "/api/admin/users", {"user_id": "ana"}, query="tenant_id=acme")
    assert made.status == 201
    assert (await before.request("GET", "/api/conversations")).status == 403
    reply = await Client(bench.app).request("POST", "/api/auth/login", {"login": "ana", "password": PASSWORD})
    assert reply.status == 401


async def test_a_turn_is_accepted_on_the_terms_of_that_moment(bench: AdminBench) -> None:
    ana = await logged_in(bench, bench.operator, "ana", "tenant_id=acme", roles=["sales"])
    chosen = {"choices": {"model_id": "large"}, "default_tools": ["crm"]}
    assert (await bench.operator.request("PATCH", "/api/admin/tenants/acme", chosen)).status == 200
    first = await ana.request("POST", "/api/chat", asking("Hi", "c1"))
    changed: dict[str, Any] = {"choices": {}, "default_tools": None}
    assert (await bench.operator.request("PATCH", "/api/admin/tenants/acme", changed)).status == 200
    second = await ana.request("POST", "/api/chat", asking("And?", "c1"))
    models = [
        json.loads(data)["data"]["id"]
        for reply in (first, second)
        for _, data in reply.frames()
        if '"data-model"' in data
    ]
    assert models == ["large", "small"]
    turns = [await bench.stages.store.get_turn(key) for key in bench.stages.turns.runs]
    terms = [turn.principal.terms for turn in turns]
    assert [(each.choices.model_id, each.tools) for each in terms] == [("large", ("crm",)), (None, None)]


async def test_development_headers_administer_nothing(bench: AdminBench) -> None:
    for roles in ("admin", "platform-admin"):
        reply = await bench.user("acme", "mallory", roles).request("GET", "/api/admin/users")
        assert (reply.status, reply.json()["code"]) == (401, "unauthenticated")
