"""Generations across processes: the call carries the result, the channel the text, and the two must agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from deployments.handles import RemoteModels, text_sink
from deployments.pickled import pack, unpack
from serve_app.channel.local import LocalChannel
from serve_app.channel.port import Address
from serve_app.domain.generation import Generation, ModelCatalog, ModelMessage, ModelRequest
from serve_app.errors import QuotaExceeded, StageUnavailable, UpstreamFailed
from serve_app.models.port import TextSink
from tests.unit.deployments.handles import FakeHandle, raised_remotely

REQUEST = ModelRequest(messages=(ModelMessage(role="user", content="Hello"),), deadline=time.time() + 60)
Script = Callable[[TextSink], Awaitable[None]]


def gateway(far: LocalChannel, script: Script, text: str) -> FakeHandle:
    """A gateway that sends what ``script`` says, and returns ``text`` as the whole."""

    async def generate(packed: bytes, to: Address) -> bytes:
        assert isinstance(unpack(packed), ModelRequest)
        await script(text_sink(far, to))
        return pack(Generation(model_id="demo", finish_reason="stop", text=text))

    return FakeHandle(generate=generate)


async def delivered() -> None:
    """What the local channel has been given arrives in the loop's next round."""
    for _ in range(3):
        await asyncio.sleep(0)


def collector() -> tuple[list[str], TextSink]:
    shown: list[str] = []

    def on_text(pieces: Sequence[str]) -> None:
        shown.extend(pieces)

    return shown, on_text


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    async with asyncio.timeout(5):
        yield


async def test_pieces_are_shown_in_order_as_they_come(near: LocalChannel, far: LocalChannel) -> None:
    shown, on_text = collector()
    seen_before_the_end = asyncio.Event()

    async def script(send: TextSink) -> None:
        send(["Grü"])
        await delivered()
        assert shown == ["Grü"]
        send(["ße, ", "Ann"])
        await delivered()
        seen_before_the_end.set()

    async with bounded():
        models = RemoteModels(gateway(far, script, "Grüße, Ann").handle, near)
        generation = await models.generate(REQUEST, on_text)
    assert "".join(shown) == generation.text == "Grüße, Ann"
    assert seen_before_the_end.is_set()


async def test_text_still_under_way_when_the_call_returns_is_taken_from_the_result(
    near: LocalChannel, far: LocalChannel
) -> None:
    shown, on_text = collector()

    async def script(send: TextSink) -> None:
        send(["One "])
        await delivered()
        send(["two"])  # still in the channel when the call returns

    async with bounded():
        await RemoteModels(gateway(far, script, "One two three").handle, near).generate(REQUEST, on_text)
    assert "".join(shown) == "One two three"


async def test_an_answer_whose_text_never_came_is_shown_whole(near: LocalChannel, far: LocalChannel) -> None:
    shown, on_text = collector()

    async def script(_: TextSink) -> None:
        pass

    async with bounded():
        await RemoteModels(gateway(far, script, "All of it").handle, near).generate(REQUEST, on_text)
    assert shown == ["All of it"]


async def test_a_piece_lost_in_the_middle_fails_the_step(near: LocalChannel, far: LocalChannel) -> None:
    _, on_text = collector()

    async def script(send: TextSink) -> None:
        send(["One "])
        await delivered()
        send(["three"])
        await delivered()

    with pytest.raises(UpstreamFailed, match="A piece of the answer was lost") as caught:
        async with bounded():
            await RemoteModels(gateway(far, script, "One two three").handle, near).generate(REQUEST, on_text)
    assert caught.value.retryable


async def test_a_caller_that_wants_no_more_ends_the_call_with_its_own_error(
    near: LocalChannel, far: LocalChannel
) -> None:
    cancelled = asyncio.Event()

    async def script(send: TextSink) -> None:
        send(["too much"])
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def refuse(_: Sequence[str]) -> None:
        raise UpstreamFailed("The answer is too long.", False)

    with pytest.raises(UpstreamFailed, match="too long"):
        async with bounded():
            await RemoteModels(gateway(far, script, "").handle, near).generate(REQUEST, refuse)
    async with bounded():
        await cancelled.wait()


async def test_text_in_the_result_alone_can_be_refused_too(near: LocalChannel, far: LocalChannel) -> None:
    async def script(_: TextSink) -> None:
        pass

    def refuse(_: Sequence[str]) -> None:
        raise UpstreamFailed("The answer is too long.", False)

    with pytest.raises(UpstreamFailed, match="too long"):
        async with bounded():
            await RemoteModels(gateway(far, script, "All of it").handle, near).generate(REQUEST, refuse)


async def test_cancelling_reaches_the_gateway_and_nothing_is_shown_after(near: LocalChannel, far: LocalChannel) -> None:
    shown, on_text = collector()
    begun, cancelled = asyncio.Event(), asyncio.Event()
    sinks: list[TextSink] = []

    async def script(send: TextSink) -> None:
        sinks.append(send)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with bounded():
        task = asyncio.create_task(RemoteModels(gateway(far, script, "").handle, near).generate(REQUEST, on_text))
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await cancelled.wait()
    sinks[0](["late"])
    await delivered()
    assert shown == []
    assert near.counts.items_unclaimed == 1


async def test_a_gateway_that_dies_in_the_middle_is_a_failure_that_can_be_tried_again(
    near: LocalChannel, far: LocalChannel
) -> None:
    from ray.exceptions import ActorDiedError

    async def script(send: TextSink) -> None:
        send(["Half"])
        await delivered()
        raise ActorDiedError

    shown, on_text = collector()
    with pytest.raises(StageUnavailable):
        async with bounded():
            await RemoteModels(gateway(far, script, "").handle, near).generate(REQUEST, on_text)
    assert shown == ["Half"]


async def test_a_gateways_refusal_arrives_as_it_was(near: LocalChannel, far: LocalChannel) -> None:
    async def script(_: TextSink) -> None:
        raise raised_remotely(QuotaExceeded("Too many tokens.", None, 7.0))

    with pytest.raises(QuotaExceeded) as caught:
        async with bounded():
            await RemoteModels(gateway(far, script, "").handle, near).generate(REQUEST, lambda _: None)
    assert caught.value.retry_after_s == 7.0


async def test_generations_side_by_side_do_not_mix(near: LocalChannel, far: LocalChannel) -> None:
    async def generate(packed: bytes, to: Address) -> bytes:
        request: ModelRequest = unpack(packed)
        send = text_sink(far, to)
        word = request.messages[0].content
        for letter in word:
            send([letter])
            await asyncio.sleep(0)
        return pack(Generation(model_id="demo", finish_reason="stop", text=word))

    models = RemoteModels(FakeHandle(generate=generate).handle, near)

    async def ask(word: str) -> str:
        shown, on_text = collector()
        await models.generate(
            ModelRequest(messages=(ModelMessage(role="user", content=word),), deadline=REQUEST.deadline), on_text
        )
        return "".join(shown)

    words = [f"word number {number}" for number in range(20)]
    async with bounded():
        assert await asyncio.gather(*map(ask, words)) == words


async def test_the_catalogue_is_asked_of_the_gateway(near: LocalChannel) -> None:
    async def catalog() -> ModelCatalog:
        return ModelCatalog(models=(), default_model_id="demo")

    assert (await RemoteModels(FakeHandle(catalog=catalog).handle, near).catalog()).default_model_id == "demo"
