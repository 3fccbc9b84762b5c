"""A report in a browser window."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from playwright.async_api import Page

Scheme = Literal["light", "dark"]
WIDTHS = (1280, 800, 390)


class Window:
    """A page in a window of some size; what it asked for and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, path: Path, width: int = 1280, scheme: Scheme = "light") -> None:
        await self.page.set_viewport_size({"width": width, "height": 900})
        await self.page.emulate_media(color_scheme=scheme)
        await self.page.goto(path.as_uri())

    async def value(self, script: str) -> object:
        return await self.page.evaluate(script)
