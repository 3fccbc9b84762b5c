"""The chat page as a user has it: what can be done on it, and what can be seen."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from playwright.async_api import Locator, Page, WebSocketRoute, expect

ANSWER_TIMEOUT_MS = 30_000


class History:
    """All texts that an answer has shown."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def check_only_grew(self) -> None:
        """Each text continues the one before it: nothing was taken away, and nothing came twice."""
        texts: list[str] = [text for text in await self._page.evaluate("window.shownTexts") if text]
        assert texts, "no answer was shown"
        for before, after in itertools.pairwise(texts):
            assert after.startswith(before), f"{before[-80:]!r} became {after[-80:]!r}"


class ChatPage:
    """Works against any server that serves the page. ``complaints`` gathers console errors, uncaught exceptions, policy
    violations, dialogs, and requests that leave the page's origin; a healthy page leaves it empty.
    """

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url
        self.complaints: list[str] = []
        self._lines: list[WebSocketRoute] = []
        page.on("console", lambda message: self._complain(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._complain(str(error)))
        page.on("request", lambda request: self._check_origin(request.url))

    async def prepare_cuts(self) -> None:
        """Makes ``cut_lines`` possible against a server that cannot be asked to; call it before ``start``."""
        await self.page.route_web_socket(re.compile("/ws/chat"), self._connect)

    async def cut_lines(self) -> None:
        """Breaks the page's connections, as a network does."""
        lines, self._lines = self._lines, []
        assert lines, "the page has no connection to cut"
        for line in lines:
            await line.close(code=1011)

    def _connect(self, line: WebSocketRoute) -> None:
        line.connect_to_server()
        self._lines.append(line)

    async def start(self, path: str = "/") -> None:
        await self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(`CSP ${e.violatedDirective} ${e.blockedURI}`))"
        )
        await self.page.goto(self.base_url + path)

    async def sign_in(self, user: str = "ana", roles: Sequence[str] = ("sales",), tenant: str = "default") -> None:
        await self.at("signin-user").fill(user)
        await self.at("signin-tenant").fill(tenant)
        for role in ("sales", "hr", "management", "admin"):
            await self.at(f"role-{role}").set_checked(role in roles)
        await self.at("signin-submit").click()
        await expect(self.at("user-name")).to_have_text(user)

    async def ask(self, question: str) -> None:
        await self.at("input").fill(question)
        await self.at("input").press("Enter")

    async def answered(self, status: str = "complete") -> Locator:
        """The last answer, once it has ended with ``status``."""
        answer = self.answer
        await expect(answer).to_have_attribute("data-status", status, timeout=ANSWER_TIMEOUT_MS)
        return answer

    @property
    def answer(self) -> Locator:
        return self.at("message-assistant").last

    @property
    def answer_text(self) -> Locator:
        return self.answer.get_by_test_id("answer-text")

    async def copied_text(self) -> str:
        """The last answer's text as it was written, by its own button."""
        await self.answer.get_by_test_id("copy").click()
        return str(await self.page.evaluate("navigator.clipboard.readText()"))

    async def stored_text(self) -> str:
        """The text of the conversation's last stored message."""
        return "".join(part["text"] for part in (await self._last_message())["parts"] if part["type"] == "text")

    async def wait_until_stored(self) -> None:
        """Waits until the last message of the conversation is an answer."""
        await self.page.wait_for_function(
            """async ([path, user]) => {
                const reply = await fetch(path, { headers: { 'X-Dev-User': user } });
                return (await reply.json()).items[0].role === 'assistant';
            }""",
            arg=[await self._last_message_path(), await self.at("user-name").inner_text()],
        )

    async def _last_message_path(self) -> str:
        return f"{self.base_url}/api/conversations/{await self.at_conversation()}/messages?order=desc&limit=1"

    async def _last_message(self) -> dict[str, Any]:
        path = await self._last_message_path()
        reply = await self.page.request.get(path, headers={"X-Dev-User": await self.at("user-name").inner_text()})
        assert reply.ok, await reply.text()
        return dict((await reply.json())["items"][0])

    async def dispatch(self, target: str, event: str) -> None:
        """An event as the browser gives it to ``document`` or ``window``."""
        await self.page.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")

    async def watch_answer(self) -> History:
        """Records every text that the last answer shows from now on, until the page is loaded anew."""
        await self.page.evaluate(
            """() => {
                window.shownTexts = [];
                const look = () => {
                    const last = [...document.querySelectorAll('[data-testid=message-assistant] .answer-body')].at(-1);
                    const text = last?.textContent ?? '';
                    if (text !== window.shownTexts.at(-1)) window.shownTexts.push(text);
                };
                const all = { childList: true, subtree: true, characterData: true };
                new MutationObserver(look).observe(document.getElementById('messages'), all);
            }"""
        )
        return History(self.page)

    def at(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    async def at_conversation(self) -> str:
        """Waits until the address names a conversation; its id."""
        await self.page.wait_for_url(re.compile(r"#/c/"))
        return self.page.url.rpartition("/")[2]

    async def overflow_px(self) -> int:
        """How far the page could be scrolled sideways."""
        script = """() => Math.max(...[document.documentElement, document.body, document.getElementById('scroller')]
            .map((e) => e.scrollWidth - e.clientWidth))"""
        return int(await self.page.evaluate(script))

    def _complain(self, what: str) -> None:
        # What the browser logs by itself about an answer of 4xx or a line that is down is no fault of the page.
        if not re.search(r"Failed to load resource|WebSocket connection to", what):
            self.complaints.append(what)

    def _check_origin(self, url: str) -> None:
        if not url.startswith((self.base_url, self.base_url.replace("http", "ws", 1), "data:", "about:")):
            self.complaints.append(f"request to {url}")
