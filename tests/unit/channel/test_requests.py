"""Requests are bounded in number and in time, whatever carries them."""

from __future__ import annotations

import asyncio
import contextvars

from serve_app.channel.frames import Answer, Call
from serve_app.channel.requests import Answering, Waiting


async def _forever(_payload: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def test_calls_beyond_the_bound_are_refused_as_overloaded() -> None:
    answering = Answering(1000, max_calls=2)
    answering.handle("wait", _forever)
    answers: list[Answer] = []
    for _ in range(3):
        answering.answer(Call("wait", b"", 60_000), answers.append)

    assert [answer.failure.kind for answer in answers if answer.failure] == ["Overloaded"]
    await answering.stop(1)


async def test_handler_is_cancelled_when_the_callers_time_is_up() -> None:
    cancelled = asyncio.Event()

    async def handler(_payload: bytes) -> bytes:
        try:
            return await _forever(b"")
        except asyncio.CancelledError:
            cancelled.set()
            raise

    answers: list[Answer] = []
    answering = Answering(1000)
    answering.handle("wait", handler)
    answering.answer(Call("wait", b"", 10), answers.append)

    await asyncio.wait_for(cancelled.wait(), 5)
    await answering.stop(1)
    assert answers == []


async def test_timeout_inside_a_handler_is_its_own_failure_and_not_the_callers() -> None:
    async def handler(_payload: bytes) -> bytes:
        raise TimeoutError

    answered = asyncio.Event()
    answers: list[Answer] = []

    def reply(answer: Answer) -> None:
        answers.append(answer)
        answered.set()

    answering = Answering(1000)
    answering.handle("slow", handler)
    answering.answer(Call("slow", b"", 60_000), reply)

    await asyncio.wait_for(answered.wait(), 5)
    assert answers[0].failure is not None
    assert answers[0].failure.kind == "Internal"


async def test_late_and_unknown_answers_are_ignored() -> None:
    waiting = Waiting(asyncio.get_running_loop(), contextvars.Context())
    numbers: list[int] = []
    request = asyncio.create_task(waiting.request("there", 60, numbers.append))
    await asyncio.sleep(0)
    waiting.settle({numbers[0]: Answer(b"yes"), 12345: Answer(b"?")})
    waiting.settle({numbers[0]: Answer(b"no")})

    assert await request == b"yes"
    waiting.settle({numbers[0]: Answer(b"late")})


async def test_stop_does_not_wait_for_a_handler_that_will_not_end() -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def stubborn(_payload: bytes) -> bytes:
        while not release.is_set():
            started.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return b""

    answering = Answering(1000)
    answering.handle("stubborn", stubborn)
    answering.answer(Call("stubborn", b"", 60_000), lambda _answer: None)
    await asyncio.wait_for(started.wait(), 5)

    await asyncio.wait_for(answering.stop(0.01), 5)
    release.set()
    await answering.stop(1)
