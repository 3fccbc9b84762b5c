"""Titles that come late are found a few times over, for any number of conversations, and never held against anybody."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.errors import NotFound, StageUnavailable
from serve_app.ingress.title_watch import MAX_WATCHED, TitleWatch

ANA = Principal(tenant_id="t", user_id="ana")
A, B = (ConversationKey.of(ANA, name) for name in "ab")


class Shelf:
    """The store's side and the client's."""

    def __init__(self) -> None:
        self.titles: dict[ConversationKey, str] = {}
        self.looks: list[ConversationKey] = []
        self.looked = asyncio.Event()
        self.failures: list[Exception] = []
        self.told: asyncio.Queue[tuple[ConversationKey, str]] = asyncio.Queue()

    async def find(self, key: ConversationKey) -> str | None:
        self.looks.append(key)
        self.looked.set()
        if self.failures:
            raise self.failures.pop(0)
        return self.titles.get(key)

    async def tell(self, key: ConversationKey, title: str) -> None:
        self.told.put_nowait((key, title))


async def ended(watch: TitleWatch) -> None:
    assert watch._task is not None
    await asyncio.wait_for(watch._task, 5)


async def test_looking_ends_after_the_last_look() -> None:
    shelf = Shelf()
    watch = TitleWatch(shelf.find, shelf.tell, (0.0, 0.001, 0.002))
    watch.expect(A)
    watch.expect(A)
    await ended(watch)
    assert shelf.looks == [A, A, A]
    assert shelf.told.empty()


async def test_a_title_is_told_once_and_not_looked_for_again() -> None:
    shelf = Shelf()
    shelf.titles[A] = "Late"
    watch = TitleWatch(shelf.find, shelf.tell, (0.0, 0.001))
    watch.expect(A)
    await ended(watch)
    assert (shelf.looks, shelf.told.get_nowait(), shelf.told.empty()) == ([A], (A, "Late"), True)


async def test_one_task_looks_for_many_and_begins_again_when_asked() -> None:
    shelf = Shelf()
    watch = TitleWatch(shelf.find, shelf.tell, (30.0, 0.0))
    watch.expect(A)
    task = watch._task
    await asyncio.wait_for(shelf.looked.wait(), 5)
    shelf.titles[B] = "Now"
    watch.expect(B)  # while it waits half a minute for the other
    assert await asyncio.wait_for(shelf.told.get(), 5) == (B, "Now")
    assert watch._task is task
    await watch.aclose()
    watch = TitleWatch(shelf.find, shelf.tell, (0.0,))
    for key in (A, B):
        watch.expect(key)
        await ended(watch)
    assert shelf.told.get_nowait() == (B, "Now")


async def test_how_many_are_looked_for_is_bounded() -> None:
    shelf = Shelf()
    watch = TitleWatch(shelf.find, shelf.tell, (0.0,))
    for number in range(MAX_WATCHED + 5):
        watch.expect(ConversationKey.of(ANA, f"c{number}"))
    await ended(watch)
    assert len(shelf.looks) == MAX_WATCHED


async def test_a_title_told_by_other_means_is_forgotten() -> None:
    shelf = Shelf()
    shelf.titles[A] = "Told"
    watch = TitleWatch(shelf.find, shelf.tell, (0.0,))
    watch.expect(A)
    watch.forget(A)
    await ended(watch)
    assert shelf.told.empty()


@pytest.mark.parametrize("failure", [StageUnavailable("away"), NotFound("deleted"), ZeroDivisionError("a bug")])
async def test_a_look_that_fails_is_only_a_look(failure: Exception) -> None:
    shelf = Shelf()
    shelf.failures.append(failure)
    shelf.titles[A] = "Late"
    watch = TitleWatch(shelf.find, shelf.tell, (0.0, 0.001))
    watch.expect(A)
    await ended(watch)
    assert shelf.told.get_nowait() == (A, "Late")


async def test_closing_stops_the_looking() -> None:
    shelf = Shelf()
    watch = TitleWatch(shelf.find, shelf.tell, (30.0,))
    await watch.aclose()
    watch.expect(A)
    task = watch._task
    await watch.aclose()
    await watch.aclose()
    assert task is not None
    assert task.done()
    assert shelf.looks == []
