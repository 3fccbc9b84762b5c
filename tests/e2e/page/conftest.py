"""A headless Chromium and a fake backend for the page's tests."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import FakeBackend, serving

CHROMIUM = Path("/usr/bin/chromium")
expect.set_options(timeout=15_000)  # milliseconds; what is slow here is the machine
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser of the system. Where there is none the tests are skipped, unless REQUIRE_BROWSER=1."""
    if not CHROMIUM.exists():
        reason = f"There is no browser at {CHROMIUM}; apt-get install chromium brings one."
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return CHROMIUM


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(chromium_path: Path) -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(chromium_path), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served_backend() -> AsyncGenerator[FakeBackend]:
    async with serving(FakeBackend()) as backend:
        yield backend


@pytest.fixture
def backend(served_backend: FakeBackend) -> FakeBackend:
    served_backend.reset()
    return served_backend


@pytest.fixture
def page_base_url(backend: FakeBackend) -> str:
    return backend.url


@pytest_asyncio.fixture(loop_scope="session")
async def chat(chromium: Browser, page_base_url: str) -> AsyncGenerator[ChatPage]:
    """A fresh browser profile on the page. Fails the test when the page has complained about anything."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(15_000)
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=page_base_url)
    chat = ChatPage(await context.new_page(), page_base_url)
    await chat.start()
    yield chat
    await context.close()
    assert chat.complaints == []
