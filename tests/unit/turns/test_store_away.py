"""The store away or failing while turns run: a pause where it comes back, the end of this ownership where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.errors import Internal, StageUnavailable
from serve_app.models.port import TextSink
from serve_app.storage.memory import MemoryStore
from serve_app.turns.port import TailEnd
from tests.scripted import Reply, ScriptedModels
from tests.unit.turns.bench import bench, types

Trouble = Callable[[int, Sequence[AppendTurn]], Exception | None]


class Troubled(MemoryStore):
    """Raises what ``trouble`` says for the n-th append, before or after having written it."""

    def __init__(self, trouble: Trouble, *, written: bool = False) -> None:
        super().__init__()
        self._trouble = trouble
        self._written = written
        self.appends = 0

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        self.appends += 1
        error = self._trouble(self.appends, batch)
        if error is not None and not self._written:
            raise error
        replies = await super().append(batch)
        if error is not None:
            raise error
        return replies


@pytest.mark.parametrize("written", [False, True])
async def test_a_store_that_is_away_for_a_moment_is_only_a_pause(written: bool) -> None:
    store = Troubled(lambda n, _: StageUnavailable("being replaced") if n in (1, 2, 4) else None, written=written)
    async with bench(ScriptedModels(Reply(pieces=("Good ", "morning.")), title=None), store=store) as b:
        key = await b.accept()
        shown = await b.run(key)
        events = await b.events(key)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert "".join(event["delta"] for event in events if event["type"] == "text.delta") == "Good morning."
        assert types(events)[-1] == "chat_response"
        assert shown[-1] == TailEnd(complete=True)
        assert store.appends >= 4


async def test_a_store_that_stays_away_leaves_the_turn_to_be_taken_over() -> None:
    store = Troubled(lambda *_: StageUnavailable("gone"))
    async with bench(ScriptedModels(Reply(pieces=("Good ",))), store=store, store_patience_s=0.1, titles=False) as b:
        key = await b.accept()
        shown = await b.run(key)
        assert shown == [TailEnd(complete=False)]
        assert types(await b.events(key)) == ["turn.started"]
        assert not (await store.get_turn(key)).ended


async def test_a_store_that_fails_is_not_asked_again_and_shows_nothing_unstored() -> None:
    store = Troubled(lambda *_: Internal("bug"))
    async with bench(ScriptedModels(Reply(pieces=("Good ",))), store=store, titles=False) as b:
        key = await b.accept()
        assert await b.run(key) == [TailEnd(complete=False)]
        assert store.appends == 1


async def test_what_is_wrong_with_one_turn_is_not_the_others_loss() -> None:
    def poison(_: int, batch: Sequence[AppendTurn]) -> Exception | None:
        poisoned = any(b"poison" in record.body for share in batch for record in share.records)
        return RuntimeError("this share cannot be stored") if poisoned else None

    waiting: list[ModelRequest] = []
    together = asyncio.Event()

    class Both(ScriptedModels):
        async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
            waiting.append(request)
            if len(waiting) == 2:
                together.set()
            await together.wait()  # both speak in the same round, so that they share an append
            return await super().generate(request, on_text)

    models = Both(Reply(pieces=("poison",)), Reply(pieces=("wholesome",)))
    async with bench(models, store=Troubled(poison), flush_ms=20, titles=False) as b:
        keys = [await b.accept(conversation="c1"), await b.accept(conversation="c2")]
        shown = await asyncio.gather(*map(b.run, keys))
        ends = {items[-1]: key for items, key in zip(shown, keys, strict=True)}
        assert set(ends) == {TailEnd(complete=False), TailEnd(complete=True)}
        assert (await b.events(ends[TailEnd(complete=True)]))[-1]["response"] == "wholesome"
        assert types(await b.events(ends[TailEnd(complete=False)])) == ["turn.started"]
