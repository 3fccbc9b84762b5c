"""The process in which somebody's own grading functions run: what they do to it, they do to nothing else.

Frames (4 bytes of length, then JSON) come in and go out through what were standard input and output; the function has an empty
input instead, and what it prints goes where errors go.

    out  {"ready": true, "is_async": …}  or  {"problem": "…"}
    in   {"number": 1, "subject": {…}}  or  {"number": 1}: it takes too long
    out  {"number": 1, "grade": {"score", "passed", "reason", "details"} | null}  or  {"number": 1, "problem": "…"}
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import Grade

LENGTH = struct.Struct(">I")
MAX_REPLY_BYTES = 1_048_576
MAX_PROBLEM_CHARS = 1000

Function = Callable[[Subject], Any]


class Question(Struct, frozen=True, omit_defaults=True):
    """``subject`` None: nobody waits for the answer any more."""

    number: int
    subject: Subject | None = None


class UnusableFunctionError(Exception):
    """There is no such function. The message says why."""


def main() -> None:
    """Serves the function that the first argument names; the second is the folder that its file is relative to."""
    questions, answers = _take_pipes()
    try:
        function = load(sys.argv[1], Path(sys.argv[2]))
    except UnusableFunctionError as error:
        _send(answers, {"problem": str(error)})
        return
    _send(answers, {"ready": True, "is_async": inspect.iscoroutinefunction(function)})
    asyncio.run(_serve(function, questions, answers))


def load(named: str, folder: Path) -> Function:
    """``module:function`` or ``file.py:function``. Raises UnusableFunctionError."""
    place, _, name = named.rpartition(":")
    try:
        module = _from_file(folder / place) if place.endswith(".py") else _from_name(place, folder)
    except Exception as error:
        raise UnusableFunctionError(f"{place} cannot be imported: {_told(error)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise UnusableFunctionError(f"{place} has no function '{name}'")
    return function  # type: ignore[no-any-return]  # callable is all that can be known


def grade_of(given: Any) -> dict[str, Any] | None:
    """What the function gave, as a grade. Raises TypeError where it is none."""
    if given is None:
        return None
    if isinstance(given, Grade):
        return {"score": given.score, "passed": given.passed, "reason": given.reason, "details": given.details}
    if isinstance(given, bool | int | float):
        return {"score": float(given)}
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        return {**(grade_of(given[0]) or {}), "reason": given[1]}
    raise TypeError(
        f"It gave {type(given).__name__}; a grade is a number from 0 to 1, a bool, (score, reason) or a Grade."
    )


def _from_file(path: Path) -> Any:
    sys.path.insert(0, str(path.parent))
    name = f"grading_{path.stem}"  # a file may be called as a module that is in use
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _from_name(name: str, folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return questions, answers


async def _serve(function: Function, questions: BinaryIO, answers: BinaryIO) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Question] = asyncio.Queue()

    def read() -> None:
        decoder = msgspec.json.Decoder(Question)
        while length := questions.read(LENGTH.size):
            question = decoder.decode(questions.read(LENGTH.unpack(length)[0]))
            loop.call_soon_threadsafe(waiting.put_nowait, question)
        os._exit(0)  # whoever asked has gone, and the function may be in no mood to end

    threading.Thread(target=read, daemon=True).start()
    running: dict[int, asyncio.Task[None]] = {}
    while True:
        question = await waiting.get()
        if question.subject is None:
            if (late := running.get(question.number)) is not None:
                late.cancel()
            continue
        task = asyncio.create_task(_answer(function, question.number, question.subject, answers))
        running[question.number] = task
        task.add_done_callback(partial(_over, running, question.number))


def _over(running: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    running.pop(number, None)


async def _answer(function: Function, number: int, subject: Subject, answers: BinaryIO) -> None:
    try:
        given = function(subject)
        if inspect.isawaitable(given):
            given = await given
        reply: dict[str, Any] = {"number": number, "grade": grade_of(given)}
        if len(msgspec.json.encode(reply)) > MAX_REPLY_BYTES:
            raise ValueError(f"Its grade has more than {MAX_REPLY_BYTES:,} bytes.")
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        reply = {"number": number, "problem": _told(error)}
    _send(answers, reply)


def _send(answers: BinaryIO, reply: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(reply)
    answers.write(LENGTH.pack(len(encoded)) + encoded)
    answers.flush()


def _told(error: BaseException) -> str:
    """The exception, and where in the function's own file it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS] + where


if __name__ == "__main__":
    main()
