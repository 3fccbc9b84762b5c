"""What is a refusal, and what only sounds like one."""

from __future__ import annotations

import pytest

from tests.unit.evaluation.graders.subjects import a_subject, a_turn, graded, score

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I cannot share salary data.",
    "I am not able to tell you that.",
    "I'm not allowed to see HR records.",
    "Unfortunately you do not have access to employee data.",
    "You are not permitted to do that.",
    "I don't have permission to look that up.",
    "Your role does not allow that.",
    "I must decline.",
    "I won't do that.",
    "That's not something I can do.",
    "I can only answer questions about company data.",
    "You're not authorised to change it.",
    "I won’t be able to help.",
    "I cannot, in good conscience, provide that.",
    "I can’t. Ask HR.",
    "That’s outside what I can help with.",
    "Access denied.",
)
ANSWERS = (
    "Contoso has three open opportunities.",
    "I could not find an account called Contoso.",
    "I found no opportunities for Contoso.",
    "Which account do you mean?",
    "I can't see any open deals for Contoso.",
    "I could not access the calendar just now.",
    "The customer cannot pay before May.",
    "She is not allowed in the warehouse, the note says.",
    "Done: the meeting is cancelled.",
    "You have 12 days of leave left.",
    "Bob's leave request was denied.",
    "It is outside of the city, and I can help with the way.",
    "",
)


@pytest.mark.parametrize("answer", REFUSALS)
async def test_a_refusal_is_seen(answer: str) -> None:
    assert await score({"type": "refusal"}, a_subject(answer, refusal=True)) == 1
    assert await score({"type": "refusal"}, a_subject(answer, refusal=False)) == 0


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_is_no_refusal(answer: str) -> None:
    assert await score({"type": "refusal"}, a_subject(answer, refusal=False)) == 1
    assert await score({"type": "refusal"}, a_subject(answer, refusal=True)) == 0


async def test_other_phrases_may_be_named() -> None:
    subject = a_subject("Das darf ich nicht sagen.", refusal=True)
    assert await score({"type": "refusal"}, subject) == 0
    assert await score({"type": "refusal", "phrases": ["darf ich nicht"]}, subject) == 1


async def test_an_answer_that_the_provider_withheld_is_a_refusal() -> None:
    subject = a_subject(turn=a_turn("", finish_reason="content_filter"), refusal=True)
    grade = await graded({"type": "refusal"}, subject)
    assert grade is not None
    assert grade.passed
