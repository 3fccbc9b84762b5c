"""Small questions become few large ones; no text is computed twice; what fails fails for those who asked for it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from serve_app.domain.usage import Usage
from serve_app.embeddings import batching
from serve_app.embeddings.batching import MAX_BATCH, MAX_BATCH_CHARS, Batches
from serve_app.embeddings.port import Embeddings
from serve_app.errors import InvalidInput, UpstreamFailed


class Model:
    """A text's vector is its length and one. ``open`` lets requests through."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()
        self.at_once = self.most_at_once = 0

    async def compute(self, texts: list[str]) -> Embeddings:
        self.batches.append(texts)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.set()
        await self.open.wait()
        self.at_once -= 1
        if "down" in texts:
            raise UpstreamFailed("It is down.")
        if "bad" in texts:
            raise InvalidInput("One of them is bad.")
        vectors = np.array([[len(text), 1] for text in texts], np.float32)
        return Embeddings(vectors=vectors, usage=Usage(input_tokens=len("".join(texts)), cost_microusd=len(texts)))


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    model = Model()
    found = await Batches(model.compute).embed(["aaa", "b", "aaa", "cc"])
    assert found.vectors[:, 0].tolist() == [3, 1, 3, 2]
    assert model.batches == [["aaa", "b", "cc"]]
    assert found.usage.input_tokens == 6


async def test_what_is_asked_for_meanwhile_goes_out_together() -> None:
    model = Model()
    model.open.clear()
    batches = Batches(model.compute)
    first = [asyncio.create_task(batches.embed([f"first {number}"])) for number in range(batching.MAX_REQUESTS)]
    while len(model.batches) < batching.MAX_REQUESTS:
        await asyncio.wait_for(model.begun.wait(), 5)
        model.begun.clear()
    rest = [asyncio.create_task(batches.embed([f"rest {number}"])) for number in range(50)]
    await asyncio.sleep(0)
    model.open.set()
    await asyncio.gather(*first, *rest)
    assert [len(batch) for batch in model.batches] == [*[1] * batching.MAX_REQUESTS, 50]
    assert model.most_at_once == batching.MAX_REQUESTS


async def test_batches_are_bounded_in_texts_and_in_characters() -> None:
    model = Model()
    await Batches(model.compute).embed([f"{number}" for number in range(MAX_BATCH + 1)])
    assert [len(batch) for batch in model.batches] == [MAX_BATCH, 1]
    model.batches.clear()
    await Batches(model.compute).embed([f"{number}" + "x" * (MAX_BATCH_CHARS // 2) for number in range(3)])
    assert [len(batch) for batch in model.batches] == [1, 1, 1]


async def test_a_text_is_computed_once_and_paid_for_by_who_asked_first() -> None:
    model = Model()
    model.open.clear()
    batches = Batches(model.compute)
    one = asyncio.create_task(batches.embed(["same"]))
    await asyncio.wait_for(model.begun.wait(), 5)
    other = asyncio.create_task(batches.embed(["same"]))
    await asyncio.sleep(0)
    model.open.set()
    first, second = await asyncio.gather(one, other)
    third = await batches.embed(["same"])
    assert model.batches == [["same"]]
    assert (first.usage.input_tokens, second.usage.input_tokens, third.usage.input_tokens) == (4, 0, 0)


async def test_all_of_a_batchs_tokens_are_somebodys() -> None:
    model = Model()
    batches = Batches(model.compute)
    found = await asyncio.gather(*(batches.embed(["x" * number]) for number in range(1, 30)))
    assert sum(one.usage.input_tokens for one in found) == sum(range(1, 30))
    assert sum(one.usage.cost_microusd for one in found) == 29


async def test_a_text_that_is_refused_takes_no_other_with_it() -> None:
    model = Model()
    batches = Batches(model.compute)
    texts = [f"good {number}" for number in range(9)]
    answers = await asyncio.gather(*(batches.embed([text]) for text in [*texts, "bad"]), return_exceptions=True)
    assert isinstance(answers[-1], InvalidInput)
    assert all(isinstance(answer, Embeddings) for answer in answers[:-1])
    assert len(model.batches) < 12


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    model = Model()
    batches = Batches(model.compute)
    with pytest.raises(UpstreamFailed):
        await batches.embed(["down", "other"])
    assert (await batches.embed(["other"])).vectors.tolist() == [[5, 1]]


async def test_who_leaves_takes_nothing_from_whoever_waits_for_the_same() -> None:
    model = Model()
    model.open.clear()
    batches = Batches(model.compute)
    leaving = asyncio.create_task(batches.embed(["same"]))
    await asyncio.wait_for(model.begun.wait(), 5)
    staying = asyncio.create_task(batches.embed(["same"]))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    model.open.set()
    assert (await staying).vectors.tolist() == [[4, 1]]


async def test_the_vectors_kept_have_a_bound_and_the_latest_used_stay() -> None:
    model = Model()
    batches = Batches(model.compute, max_kept_bytes=3 * 8)
    for text in ("a", "bb", "ccc", "a", "dddd", "a", "bb"):
        await batches.embed([text])
    assert [batch[0] for batch in model.batches] == ["a", "bb", "ccc", "dddd", "bb"]


async def test_closing_ends_what_is_under_way() -> None:
    model = Model()
    model.open.clear()
    batches = Batches(model.compute)
    waiting = asyncio.create_task(batches.embed(["x"]))
    await asyncio.wait_for(model.begun.wait(), 5)
    await batches.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)
