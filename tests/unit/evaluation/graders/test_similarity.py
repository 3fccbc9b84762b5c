"""How near an answer is to the expected one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve_app.credentials import Secrets
from serve_app.embeddings.connect import connect_embedders
from serve_app.evaluation.graders.make import make_graders
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import Grade
from serve_app.settings import Settings
from tests.unit.evaluation.graders.subjects import FAILED, a_subject, configs


async def graded(subject: Subject, **config: Any) -> Grade | None:
    embedders = connect_embedders(Settings(), Secrets(), None)
    graders = make_graders(configs({"type": "similarity", **config}), embedders=embedders, folder=Path())
    return (await graders.grade(subject))["similarity"]


@pytest.mark.parametrize(
    ("said", "expected", "threshold", "passed"),
    [
        ("Contoso has three open deals.", "Contoso has three open deals", 0.99, True),
        ("Three open deals: that is what Contoso has.", "Contoso has three open deals.", 0.7, True),
        ("It rains in Oslo.", "Contoso has three open deals.", 0.3, False),
        ("", "Contoso has three open deals.", 0.1, False),
        ("", " ", 0.99, True),
    ],
)
async def test_an_answer_is_as_good_as_it_is_near(said: str, expected: str, threshold: float, passed: bool) -> None:
    grade = await graded(a_subject(said, answer=expected), threshold=threshold)
    assert grade is not None
    assert grade.score is not None
    assert 0 <= grade.score <= 1
    assert grade.passed is passed


async def test_the_embedder_is_named() -> None:
    grade = await graded(a_subject("a", answer="a"))
    assert grade is not None
    assert grade.details == {"embedder": "words"}


async def test_without_an_expected_answer_there_is_nothing_to_say_and_a_failed_turn_is_near_nothing() -> None:
    assert await graded(a_subject("a")) is None
    grade = await graded(a_subject(turn=FAILED, answer="a"))
    assert grade is not None
    assert grade.score == 0
