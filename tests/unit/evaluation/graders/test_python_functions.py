"""Functions of one's own: what they may give, how they fail, and that they cannot stop a run. Each runs in a real process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.make import Graders
from serve_app.evaluation.results import Grade
from tests.unit.evaluation.graders.subjects import FAILED, a_subject, made

pytestmark = pytest.mark.timeout(90)

GRADES = """
    import asyncio
    import os
    import sys
    import time

    from serve_app.evaluation.graders.port import Subject
    from serve_app.evaluation.results import Grade

    print("printed while it is imported")

    def shows(subject: Subject):
        said = subject.result.answer
        if said.startswith("exit"):
            sys.stderr.write("going down\\n")
            sys.stderr.flush()
            os._exit(3)
        if said.startswith("loop"):
            while True:
                pass
        if said == "sleep":
            time.sleep(60)
        print("printed")
        sys.stdin.read()
        return {
            "true": True, "false": False, "half": 0.5, "one": 1, "nothing": None, "pair": (0.25, "A quarter."),
            "grade": Grade(grader="", score=0.9, passed=False, reason="No.", details={"a": 1}),
            "none": Grade(grader="", score=None, passed=None, reason="Who knows."),
            "much": 1.5, "nan": float("nan"), "text": "good", "list": [1], "big": (0.5, "x" * 2_000_000),
        }[said]

    def process(subject):
        return 1, str(os.getpid())

    def failed(subject):
        return subject.result.failed, subject.result.last.error_code

    met = asyncio.Event()

    async def meets(subject):
        if subject.result.answer == "other":
            met.set()
        await met.wait()
        return 1

    async def awaits(subject):
        if subject.result.answer == "for ever":
            await asyncio.sleep(3600)
        if subject.result.answer == "blocks":
            while True:
                pass
        await asyncio.sleep(0)
        return 0.5, str(os.getpid())

    not_a_function = 5
"""


@pytest.fixture
async def make(tmp_path: Path) -> Any:
    (tmp_path / "grades.py").write_text(dedent(GRADES))
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    open_ones: list[Graders] = []

    def make(function: str, timeout_s: float = 60.0) -> Graders:
        config = {"type": "python", "function": function, "timeout_s": timeout_s}
        graders = made(config, folder=tmp_path)
        open_ones.append(graders)
        return graders

    yield make
    for graders in open_ones:
        await graders.aclose()


Make = Callable[..., Graders]


async def grade(graders: Graders, said: str) -> Grade | None:
    return (await graders.grade(a_subject(said)))["python"]


async def test_a_function_may_say_it_in_several_ways(make: Make) -> None:
    graders = make("grades.py:shows")
    for said, score, passed in [
        ("true", 1, True), ("false", 0, False), ("half", 0.5, True), ("one", 1, True), ("pair", 0.25, False),
        ("grade", 0.9, False), ("none", None, None), ("much", None, None), ("nan", None, None), ("text", None, None),
        ("list", None, None), ("big", None, None), ("unknown", None, None),
    ]:  # fmt: skip
        found = await grade(graders, said)
        assert found is not None, said
        assert (found.score, found.passed) == (score, passed), (said, found.reason)
    assert await grade(graders, "nothing") is None
    pair, whole, unknown = [await grade(graders, said) for said in ("pair", "grade", "unknown")]
    assert pair is not None
    assert whole is not None
    assert unknown is not None
    assert pair.reason == "A quarter."
    assert (whole.reason, whole.details) == ("No.", {"a": 1})
    assert "KeyError: 'unknown' (grades.py, line" in unknown.reason


async def test_a_function_that_takes_too_long_is_ended_and_the_next_answer_graded(make: Make) -> None:
    graders = make("grades.py:shows", 2.0)
    for said in ("loop", "sleep"):
        slow = await grade(graders, said)
        assert slow is not None
        assert slow.score is None
        assert "longer than 2 s" in slow.reason
    found = await grade(graders, "half")
    assert found is not None
    assert found.score == 0.5


async def test_a_process_that_dies_is_said_with_its_last_words_and_replaced(make: Make) -> None:
    graders = make("grades.py:shows")
    dead = await grade(graders, "exit")
    assert dead is not None
    assert dead.score is None
    assert "Its process ended: " in dead.reason
    assert "going down" in dead.reason
    found = await grade(graders, "half")
    assert found is not None
    assert found.score == 0.5


async def test_it_runs_in_one_process_that_ends_with_the_graders(make: Make) -> None:
    graders = make("grades.py:process")
    grades = await asyncio.gather(*(grade(graders, "x") for _ in range(20)))
    (pid,) = {int(found.reason) for found in grades if found is not None}
    assert pid != os.getpid()
    await graders.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_awaits_for_ever_takes_nothing_from_those_beside_it(make: Make) -> None:
    graders = make("grades.py:awaits", 3.0)
    await graders.ready()
    slow, *others = await asyncio.gather(*(grade(graders, said) for said in ("for ever", *["x"] * 30)))
    others.append(await grade(graders, "x"))
    assert slow is not None
    assert slow.score is None
    assert "longer than 3 s" in slow.reason
    assert [found.score for found in others if found is not None] == [0.5] * 31
    assert len({found.reason for found in others if found is not None}) == 1, "its process was ended for one answer"


async def test_those_that_await_are_asked_together(make: Make) -> None:
    graders = make("grades.py:meets")
    grades = await asyncio.gather(grade(graders, "one"), grade(graders, "other"))
    assert [found.score for found in grades if found is not None] == [1, 1]


async def test_one_that_awaits_but_is_busy_is_ended_too(make: Make) -> None:
    graders = make("grades.py:awaits", 1.0)
    busy = await grade(graders, "blocks")
    assert busy is not None
    assert "longer than 1 s" in busy.reason
    found = await grade(graders, "x")
    assert found is not None
    assert found.score == 0.5


async def test_many_that_take_too_long_take_nothing_from_those_that_wait(make: Make) -> None:
    graders = make("grades.py:shows", 1.5)
    await graders.ready()
    grades = await asyncio.gather(*(grade(graders, said) for said in ("loop", "half", "loop", "half", "loop", "half")))
    assert [found.score for found in grades if found is not None] == [None, 0.5, None, 0.5, None, 0.5]


async def test_a_function_sees_failed_turns(make: Make) -> None:
    found = (await make("grades.py:failed").grade(a_subject(turn=FAILED)))["python"]
    assert found is not None
    assert (found.score, found.reason) == (1, "upstream_failed")


async def test_a_module_is_found_beside_the_run_file(make: Make) -> None:
    found = await grade(make("grades:awaits"), "x")
    assert found is not None
    assert found.score == 0.5


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("grades.py:missing", "has no function 'missing'"),
        ("grades.py:not_a_function", "has no function"),
        ("nowhere.py:shows", "cannot be imported"),
        ("broken.py:shows", "nothing_of_that_name"),
        ("no.such.module:shows", "cannot be imported"),
    ],
)
async def test_a_function_that_is_not_there_is_refused_before_anything_is_spent(
    make: Make, function: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        await make(function).ready()


async def test_no_exit_status_is_taken_from_asyncio_which_would_say_so_on_the_terminal(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "send_signal", lambda process, _: asked.append(process.pid))
    with pytest.raises(ConfigError):
        await make("grades.py:missing").ready()
    dead = await grade(make("grades.py:shows"), "exit")
    slow = await grade(make("grades.py:shows", 2.0), "loop")
    assert dead is not None
    assert slow is not None
    assert "Its process ended" in dead.reason
    assert "longer than 2 s" in slow.reason
    assert asked == []
