"""The child process of a grading function: started when it is first asked, ended when it takes too long, and begun anew."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
from collections import deque
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.python_child import LENGTH, MAX_REPLY_BYTES, Question

START_TIMEOUT_S = 60.0
MAX_TOGETHER = 16
"""Questions to a function that awaits; one that does not is asked one after the other. Where one that awaits is busy all the
same, those beside it take as long."""
MAX_SUBJECT_BYTES = 64 * 2**20
_ATTEMPTS = 3
"""At a question whose process was ended for another's sake."""
_LETTING_GO_S = 2.0
_TAIL_LINES = 5
_TAIL_CHARS = 500


class PythonReply(Struct, frozen=True):
    """``grade`` None with no ``problem``: there is nothing to grade."""

    number: int = 0
    grade: dict[str, Any] | None = None
    problem: str = ""
    ready: bool = False
    is_async: bool = False


class FunctionFailedError(Exception):
    """The function gave no grade. The message says why."""


class PythonProcess:
    """Asks one function. A process that has gone is replaced when the next question comes."""

    def __init__(self, function: str, folder: Path, timeout_s: float) -> None:
        self._function = function
        self._folder = folder
        self._timeout_s = timeout_s
        self._starting = asyncio.Lock()
        self._child: _Child | None = None
        self._numbers = count(1)

    async def ready(self) -> None:
        """Starts the process. Raises ConfigError where there is no such function."""
        await self._running()

    async def ask(self, subject: Subject) -> dict[str, Any] | None:
        """The function's grade, None for nothing to grade. Raises FunctionFailedError, and ConfigError as ``ready`` does."""
        number = next(self._numbers)
        question = msgspec.json.encode(Question(number, subject))
        if len(question) > MAX_SUBJECT_BYTES:
            raise FunctionFailedError(f"The result has more than {MAX_SUBJECT_BYTES:,} bytes.")
        left = _ATTEMPTS
        while True:
            child = await self._running()
            async with child.places:
                if child.ended:
                    continue  # while this one waited: it was not asked yet
                try:
                    async with asyncio.timeout(self._timeout_s):
                        reply = await child.ask(number, question)
                except TimeoutError:
                    await child.give_up(number)
                    raise FunctionFailedError(f"It took longer than {self._timeout_s:g} s.") from None
                except _ChildGoneError:
                    left -= 1
                    if child.gone_slow and left:
                        continue  # another question was the slow one
                    tail = await child.last_words()
                    raise FunctionFailedError(f"Its process ended{tail}.") from None
            if reply.problem:
                raise FunctionFailedError(reply.problem)
            return reply.grade

    async def aclose(self) -> None:
        async with self._starting:
            if self._child is not None:
                await self._child.end()
                self._child = None

    async def _running(self) -> _Child:
        async with self._starting:
            if self._child is None or self._child.ended:
                self._child = await _Child.start(self._function, self._folder)
            return self._child


class _ChildGoneError(Exception):
    """The process has ended, or is about to."""


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.places = asyncio.Semaphore(1)
        self.gone_slow = False
        """It was ended since it did not let go of a question."""
        self.ended = False
        self._is_async = False
        self._process = process
        self._waiting: dict[int, asyncio.Future[PythonReply]] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._decoder = msgspec.json.Decoder(PythonReply)
        context = contextvars.Context()  # it outlives the question that started it
        self._errors = asyncio.create_task(self._read_errors(), context=context)
        self._replies: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, function: str, folder: Path) -> _Child:
        """Raises ConfigError."""
        child = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serve_app.evaluation.graders.python_child", function, str(folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the runner's, which ends in good order
            )
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                first = await child._read()
        except TimeoutError:
            await child.end()
            raise ConfigError(f"The function {function} was not imported within {START_TIMEOUT_S:g} s.") from None
        except BaseException:
            await child.end()
            raise
        if first is None or not first.ready:
            tail = await child.last_words()
            why = first.problem if first is not None else f"its process ended{tail}"
            await child.end()
            raise ConfigError(f"The function {function} cannot be used: {why}.")
        child._is_async = first.is_async
        child.places = asyncio.Semaphore(MAX_TOGETHER if first.is_async else 1)
        child._replies = asyncio.create_task(child._read_replies(), context=contextvars.Context())
        return child

    async def ask(self, number: int, question: bytes) -> PythonReply:
        """Raises _ChildGoneError."""
        pipe = self._process.stdin
        if self.ended or pipe is None:
            raise _ChildGoneError
        future: asyncio.Future[PythonReply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            pipe.write(LENGTH.pack(len(question)) + question)
            await pipe.drain()
            return await future
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise _ChildGoneError from None
        finally:
            self._waiting.pop(number, None)

    async def give_up(self, number: int) -> None:
        """Ends one question: by itself where the function awaits, and lets itself be cancelled; else with the whole process."""
        if self._is_async:
            with contextlib.suppress(TimeoutError, _ChildGoneError):
                async with asyncio.timeout(_LETTING_GO_S):
                    await self.ask(number, msgspec.json.encode(Question(number)))
                return
        self.gone_slow = True
        await self.end()

    async def end(self) -> None:
        """Kills the process; whoever waits hears that it has gone."""
        self.ended = True
        self._kill()
        await self._process.wait()
        self._gone()
        for task in (self._errors, self._replies):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in (self._errors, self._replies) if task), return_exceptions=True)

    async def last_words(self) -> str:
        """What it wrote before it ended, as the end of a sentence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.wait([self._errors])
        said = " / ".join(self._tail).strip()
        return f": {said[-_TAIL_CHARS:]}" if said else ""

    async def _read(self) -> PythonReply | None:
        pipe = self._process.stdout
        if pipe is None:
            return None
        try:
            length = LENGTH.unpack(await pipe.readexactly(LENGTH.size))[0]
            if length > MAX_REPLY_BYTES + 1000:
                return None
            return self._decoder.decode(await pipe.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            return None

    async def _read_replies(self) -> None:
        while (reply := await self._read()) is not None:
            future = self._waiting.get(reply.number)
            if future is not None and not future.done():
                future.set_result(reply)
        self.ended = True
        self._kill()
        self._gone()

    def _kill(self) -> None:
        """Not the transport's: it looks first whether the process has ended, which takes the exit status away from asyncio, and
        asyncio then says so on the terminal."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _read_errors(self) -> None:
        pipe = self._process.stderr
        while pipe is not None and (read := await pipe.read(4096)):
            self._tail.extend(line for line in read.decode(errors="replace").splitlines() if line.strip())

    def _gone(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_ChildGoneError())
