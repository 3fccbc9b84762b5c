"""Books in this process: right while one process counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from serve_app.domain.ids import new_id
from serve_app.rates.book import Book, answer, levels_of
from serve_app.rates.port import Answer, Ask, Level

MAX_PROVIDERS = 200


class MemoryRates:
    """``clock`` gives seconds and never goes back. No awaits inside, hence no locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._books: dict[str, Book] = {}

    async def ask(self, ask: Ask) -> Answer:
        book = self._books.get(ask.provider)
        if book is None:
            if len(self._books) >= MAX_PROVIDERS:
                self._books.pop(next(iter(self._books)))
            book = self._books[ask.provider] = Book(id=new_id("book"))
        return answer(book, ask, self._clock())

    def levels(self) -> list[Level]:
        now = self._clock()
        return [level for provider, book in self._books.items() for level in levels_of(book, provider, now)]

    async def close(self) -> None:
        """Nothing is held."""
