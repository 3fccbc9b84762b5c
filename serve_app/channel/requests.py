"""Requests over a channel, apart from how frames travel: who waits for an answer, and who gives one.

caller                      Waiting            frames           Answering            handler
  │ request ─────────────────► number ───── Call(number) ───────► task ────────────────►│
  │ ◄── result or error ◄──── settle ◄───── Answer(number) ◄──────┘◄── result or error ─┘
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable

from serve_app.channel.frames import Answer, Call, error_of, failure_of
from serve_app.channel.port import Handler
from serve_app.errors import Internal, NotFound, Overloaded, ParleyError, StageUnavailable, TooLarge
from serve_app.telemetry import logger

MAX_CALLS = 1024
"""Most handlers running at a time in one process."""


class Waiting:
    """The requests of one process that wait for their answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self._loop = loop
        self._context = context
        self._numbers = itertools.count(1)
        self._futures: dict[int, tuple[str, asyncio.Future[bytes]]] = {}

    async def request(self, endpoint: str, timeout_s: float, submit: Callable[[int], None]) -> bytes:
        """Hands a new number to ``submit`` and waits for its answer.

        Raises the answer's error, or StageUnavailable after ``timeout_s``.
        """
        number = next(self._numbers)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._futures[number] = (endpoint, future)
        # One timer instead of a timeout's task and scope: requests are frequent.
        timer = self._loop.call_later(
            timeout_s, _fail, future, f"No answer within {timeout_s:g} s.", context=self._context
        )
        try:
            submit(number)
            return await future
        finally:
            timer.cancel()
            self._futures.pop(number, None)

    def settle(self, answers: dict[int, Answer]) -> None:
        """Passes answers on. Those that nobody waits for any more are late, not wrong."""
        for number, answer in answers.items():
            _, future = self._futures.get(number, ("", None))
            if future is None or future.done():
                continue
            if answer.failure is None:
                future.set_result(answer.payload)
            else:
                future.set_exception(error_of(answer.failure))

    def lost(self, endpoint: str | None = None) -> None:
        """Fails what waits for a peer that is gone, or everything."""
        for waited_for, future in list(self._futures.values()):
            if endpoint is None or waited_for == endpoint:
                _fail(future, "The process that was asked is gone.")


class Answering:
    """The handlers of one process and the calls they are at work on."""

    def __init__(self, max_payload_bytes: int, max_calls: int = MAX_CALLS) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._max_calls = max_calls
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("channel")

    def handle(self, name: str, handler: Handler) -> None:
        self._handlers[name] = handler

    def answer(self, call: Call, reply: Callable[[Answer], None]) -> None:
        """Starts the handler in a context of its own and calls ``reply`` once; not after the caller's time is up."""
        handler = self._handlers.get(call.name)
        if handler is None:
            reply(_failed(NotFound(f"Nothing here answers {call.name!r}.")))
            return
        if len(self._tasks) >= self._max_calls:
            reply(_failed(Overloaded("Too many requests at a time.")))
            return
        task = asyncio.get_running_loop().create_task(
            self._run(call, handler, reply), name=f"channel:{call.name}", context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, call: Call, handler: Handler, reply: Callable[[Answer], None]) -> None:
        try:
            async with asyncio.timeout(call.timeout_ms / 1000) as deadline:
                payload = await handler(call.payload)
            if len(payload) > self._max_payload_bytes:
                raise TooLarge("The answer is larger than a frame can be.")
        except ParleyError as error:
            reply(_failed(error))
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                return  # nobody waits any more
            self._log.exception("a request's handler failed", name=call.name)
            reply(_failed(Internal("A request between stages failed; the log has the reason.")))
        else:
            reply(Answer(payload))

    async def stop(self, timeout_s: float) -> None:
        """Cancels what runs and waits for it, at most ``timeout_s``."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)


def _failed(error: ParleyError) -> Answer:
    return Answer(failure=failure_of(error))


def _fail(future: asyncio.Future[bytes], sentence: str) -> None:
    if not future.done():
        future.set_exception(StageUnavailable(sentence))
