"""The page with accounts of the server's own: logging in and out, and sessions that outlast an access token."""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from serve_app.access.resolver import AccessResolver
from serve_app.domain.access import TenantRecord, UserRecord
from serve_app.identity.connect import connect
from serve_app.ingress.app import create_app
from serve_app.settings import AuthSettings, Settings
from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import listening
from tests.scripted import Reply, ScriptedModels
from tests.unit.accounts.bench import OTHER_PASSWORD, PASSWORD, Bench
from tests.unit.ingress.stages import make_stages
from tests.unit.ingress.test_whole_turn import EchoTools
from tests.unit.ingress.whole import real_turns

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOGIN = "ana@contoso.example"


@dataclass
class World:
    chat: ChatPage
    bench: Bench


@pytest_asyncio.fixture(loop_scope="session")
async def world(chromium: Browser) -> AsyncGenerator[World]:
    settings = Settings(store="memory", auth=AuthSettings(mode="accounts"))
    stages = make_stages()
    bench = Bench(settings.auth, stages.store)
    bench.clock.now = time.time()
    await bench.directory.save_tenant(TenantRecord(tenant_id="contoso"))
    await bench.directory.save_user(UserRecord(tenant_id="contoso", user_id="ana", roles=("sales",)))
    issued = await bench.accounts.issue_reset("contoso", "ana", LOGIN)
    await bench.accounts.reset(issued.token, PASSWORD)
    models = ScriptedModels(*[Reply(pieces=("Good ", "day."))] * 4)
    context = await chromium.new_context(reduced_motion="reduce")
    async with real_turns(models, EchoTools(), settings, stages) as services:
        authenticator = connect(settings, AccessResolver(bench.directory), await bench.accounts.jwks())
        app = create_app(replace(services, authenticator=authenticator, accounts=bench.accounts))
        async with listening(app) as url:
            chat = ChatPage(await context.new_page(), url)
            await chat.start()
            yield World(chat, bench)
            await context.close()
    assert chat.complaints == []


async def log_in(chat: ChatPage, password: str = PASSWORD) -> None:
    await chat.at("login-name").fill(LOGIN)
    await chat.at("login-password").fill(password)
    await chat.at("login-submit").click()


async def test_one_logs_in_asks_reloads_and_logs_out(world: World) -> None:
    chat = world.chat
    await log_in(chat, "not it at all")
    await expect(chat.at("login-message")).to_be_visible()
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    await chat.ask("Good day?")
    await chat.answered()
    await chat.page.reload()
    await expect(chat.at("user-name")).to_have_text("ana")
    await expect(chat.answer_text).to_have_text("Good day.")
    await chat.at("switch-user").click()
    await expect(chat.at("login-form")).to_be_visible()
    await chat.page.reload()
    await expect(chat.at("login-form")).to_be_visible()


async def test_a_one_time_token_gets_one_a_password_and_in(world: World) -> None:
    chat = world.chat
    issued = await world.bench.accounts.issue_reset("contoso", "ana", LOGIN)
    await chat.at("login-other").click()
    await expect(chat.at("login-password")).to_be_hidden()
    await chat.at("login-name").fill(LOGIN)
    await chat.at("login-once").fill(issued.token)
    await chat.at("login-new").fill("short")
    await chat.at("login-submit").click()
    await expect(chat.at("login-message")).to_contain_text("12 to 256 characters")
    await chat.at("login-new").fill(OTHER_PASSWORD)
    await chat.at("login-submit").click()
    await expect(chat.at("user-name")).to_have_text("ana")
    await chat.at("switch-user").click()
    await log_in(chat, OTHER_PASSWORD)
    await expect(chat.at("user-name")).to_have_text("ana")


async def test_no_script_can_read_what_keeps_the_session(world: World) -> None:
    chat = world.chat
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    cookies = await chat.page.context.cookies()
    assert [(one["httpOnly"], one["sameSite"], one["path"]) for one in cookies] == [(True, "Strict", "/api/auth")]
    kept = await chat.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert cookies[0]["value"] not in kept
    assert "eyJ" not in kept, "no token is kept where a script could read it"


async def test_a_session_that_was_ended_asks_to_log_in_again(world: World) -> None:
    chat = world.chat
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    await world.bench.accounts.end_sessions("contoso", "ana")
    await chat.page.reload()
    await expect(chat.at("login-form")).to_be_visible()


async def test_what_one_tab_signs_out_of_holds_for_the_others(world: World) -> None:
    chat = world.chat
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    other = ChatPage(await chat.page.context.new_page(), chat.base_url)
    await other.start()
    await expect(other.at("user-name")).to_have_text("ana")
    await other.at("switch-user").click()
    await expect(chat.at("login-form")).to_be_visible()
    await expect(chat.at("login-message")).to_contain_text("another tab")
    assert other.complaints == []


async def test_a_tab_is_not_turned_into_somebody_else_who_signs_in_in_another(world: World) -> None:
    """The cookie is all tabs', so the next access token may be for somebody else."""
    [mine, next_of_mine, theirs] = [unsigned(user) for user in ("ana", "ana", "bob")]
    outcome = await world.chat.page.evaluate(
        """async ([mine, next, theirs]) => {
            const { TokenCredentials } = await import("/assets/credentials.js");
            const answers = [next, theirs];
            const refresh = async () => ({ access_token: answers.shift(), expires_in_s: 900 });
            const credentials = new TokenCredentials({ access_token: mine, expires_in_s: 900 }, refresh);
            return [await credentials.renew(), await credentials.renew(), (await credentials.headers()).authorization];
        }""",
        [mine, next_of_mine, theirs],
    )
    assert outcome == [True, False, f"Bearer {next_of_mine}"]


def unsigned(user: str) -> str:
    claims = json.dumps({"tenant_id": "contoso", "sub": user, "jti": secrets.token_hex(8)}).encode()
    return f"e30.{urlsafe_b64encode(claims).rstrip(b'=').decode()}.c2ln"


async def test_whoever_cannot_be_signed_out_at_the_server_is_told(world: World) -> None:
    chat = world.chat
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    await chat.page.route("**/api/auth/logout", lambda route: route.fulfill(status=503, json={}))
    await chat.at("switch-user").click()
    await expect(chat.at("login-message")).to_contain_text("session goes on there")


async def test_a_server_that_is_busy_for_a_moment_makes_nobody_log_in_again(world: World) -> None:
    chat = world.chat
    await log_in(chat)
    await expect(chat.at("user-name")).to_have_text("ana")
    await chat.page.route("**/api/authz", lambda route: route.fulfill(status=503, json={}), times=1)
    await chat.page.reload()
    await expect(chat.at("user-name")).to_have_text("ana")
    await expect(chat.at("login-form")).to_be_hidden()
