"""An answer goes on through a reload, a sleep and a lost network: the text at the end is the stored text, and what was shown
on the way was the beginning of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.dead_line import Line, line_to
from tests.e2e.page.real_ingress import real_ingress
from tests.scripted import Reply, ScriptedModels

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = tuple(f"{number} " for number in range(400))
HALF = "199"
"""The last word before the answer is held."""


@dataclass
class Held:
    """The page in the middle of an answer of the real ingress; ``go_on`` lets the model finish."""

    chat: ChatPage
    line: Line
    models: ScriptedModels
    go_on: asyncio.Event

    async def ask(self) -> str:
        """Asks, and returns the text shown when half of the answer is there."""
        await self.chat.ask("Count")
        await asyncio.wait_for(self.models.holding.wait(), 20)
        await expect(self.chat.answer_text).to_contain_text(HALF)
        return await self.shown()

    async def shown(self) -> str:
        return await self.chat.answer_text.inner_text()

    async def hold_time(self) -> None:
        """Loads the page anew with a clock that the test may stop and turn on."""
        page, greeted = self.chat.page, asyncio.Event()
        page.on("websocket", lambda socket: socket.on("framereceived", lambda _: greeted.set()))
        await page.clock.install()
        await page.reload()
        await asyncio.wait_for(greeted.wait(), 20)

    async def stop_time(self) -> None:
        """Nothing happens on the page by itself from now on."""
        page = self.chat.page
        await page.clock.pause_at((await page.evaluate("Date.now()") + 500) / 1000)

    async def check_whole(self, before: str) -> None:
        """The answer has ended: compares it with the stored message, with what was shown before, and with a fresh load."""
        chat = self.chat
        await chat.answered()
        stored = await chat.stored_text()
        assert stored == "".join(WORDS)
        assert await chat.copied_text() == stored
        assert await self.shown() == stored.strip()
        assert stored.startswith(before)
        assert len(self.models.requests) == 1, "the model was asked again"
        await expect(chat.at("message-user")).to_have_count(1)
        await expect(chat.at("message-assistant")).to_have_count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def held(chromium: Browser) -> AsyncGenerator[Held]:
    go_on = asyncio.Event()
    models = ScriptedModels(Reply(pieces=WORDS, hold=go_on))
    context = await chromium.new_context(reduced_motion="reduce")
    context.set_default_timeout(15_000)
    async with real_ingress(models) as url, line_to(url) as line:
        await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=line.url)
        chat = ChatPage(await context.new_page(), line.url)
        await chat.start()
        await chat.sign_in()
        yield Held(chat, line, models, go_on)
        go_on.set()
        await context.close()
    assert chat.complaints == []


async def test_a_reload_in_mid_answer_goes_on_with_it(held: Held) -> None:
    before = await held.ask()
    await held.chat.page.reload()
    await expect(held.chat.answer_text).to_contain_text(HALF)
    assert await held.shown() == before
    held.go_on.set()
    await held.check_whole(before)


async def test_a_reload_while_the_answer_is_pouring_in_goes_on_with_it(held: Held) -> None:
    await held.ask()
    held.go_on.set()
    await held.chat.page.reload()
    await held.check_whole("0 ")


async def test_a_page_opened_beside_shows_the_same_answer(held: Held) -> None:
    before = await held.ask()
    beside = ChatPage(await held.chat.page.context.new_page(), held.line.url)
    await beside.start(f"/#/c/{await held.chat.at_conversation()}")
    await expect(beside.answer_text).to_contain_text(HALF)
    assert await beside.answer_text.inner_text() == before
    held.go_on.set()
    await beside.answered()
    assert await beside.answer_text.inner_text() == "".join(WORDS).strip()
    assert beside.complaints == []
    await held.chat.page.bring_to_front()
    await held.check_whole(before)


async def test_a_connection_broken_again_and_again_costs_no_text(held: Held) -> None:
    history = await held.chat.watch_answer()
    before = await held.ask()
    for _ in range(3):
        async with held.line.comes_back():
            held.line.cut()
    held.go_on.set()
    await held.check_whole(before)
    await history.check_only_grew()


@pytest.mark.parametrize(
    ("target", "event"),
    [("document", "visibilitychange"), ("document", "resume"), ("window", "pageshow"), ("window", "online")],
)
async def test_a_machine_that_wakes_finds_its_dead_line_within_seconds(held: Held, target: str, event: str) -> None:
    await held.hold_time()
    before = await held.ask()
    held.line.swallow()
    held.go_on.set()
    await held.stop_time()
    async with held.line.comes_back():
        await held.chat.dispatch(target, event)
        await held.chat.page.clock.run_for(4_000)
    await held.chat.page.clock.resume()
    await held.check_whole(before)


@pytest.mark.parametrize("slept_s", [30, 8 * 3600])
async def test_a_sleep_that_the_browser_says_nothing_of_is_noticed_by_the_time_that_passed(
    held: Held, slept_s: int
) -> None:
    await held.hold_time()
    before = await held.ask()
    held.line.swallow()
    held.go_on.set()
    await held.stop_time()
    async with held.line.comes_back():
        await held.chat.page.clock.fast_forward(slept_s * 1000)
        await held.chat.page.clock.run_for(14_000)
    await held.chat.page.clock.resume()
    await held.check_whole(before)


async def test_a_question_sent_on_a_dead_line_is_missed_and_sent_again_once(held: Held) -> None:
    await held.hold_time()
    held.line.swallow()
    await held.stop_time()
    await held.chat.ask("Count")
    async with held.line.comes_back():
        await held.chat.page.clock.run_for(15_000)
    await held.chat.page.clock.resume()
    held.go_on.set()
    await held.check_whole("0 ")


async def test_a_network_that_goes_and_comes_back_costs_no_text(held: Held) -> None:
    history = await held.chat.watch_answer()
    before = await held.ask()
    context = held.chat.page.context
    held.line.swallow()
    await context.set_offline(True)
    await expect(held.chat.at("connection")).to_contain_text("offline")
    held.go_on.set()
    await context.set_offline(False)
    await held.check_whole(before)
    await history.check_only_grew()


async def test_a_line_that_is_slow_and_narrow_shows_the_same_text(held: Held) -> None:
    session = await held.chat.page.context.new_cdp_session(held.chat.page)
    slow = {"offline": False, "latency": 400, "downloadThroughput": 20_000, "uploadThroughput": 20_000}
    await session.send("Network.emulateNetworkConditions", slow)
    before = await held.ask()
    held.line.cut()
    held.go_on.set()
    await held.check_whole(before)


async def test_an_answer_that_ended_while_the_page_was_away_is_there_when_it_comes_back(held: Held) -> None:
    before = await held.ask()
    held.line.swallow()
    held.go_on.set()
    await held.chat.wait_until_stored()
    await held.chat.dispatch("window", "online")
    await held.check_whole(before)


async def test_stopping_after_a_reload_stops_the_turn_and_keeps_its_text(held: Held) -> None:
    before = await held.ask()
    await held.chat.page.reload()
    await expect(held.chat.answer_text).to_contain_text(HALF)
    await held.chat.at("stop").click()
    await held.chat.answered("cancelled")
    await asyncio.wait_for(held.models.cancelled.wait(), 10)
    assert await held.shown() == before
    assert (await held.chat.stored_text()).strip() == before
    await expect(held.chat.at("answer-mark")).to_have_text("Stopped.")
