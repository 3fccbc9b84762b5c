"""What a user says, conversation by conversation, and how long they think before it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from load_tests.ways.way import Question
from serve_app.capacity.scenario import UserEntry

QUESTIONS = (
    "What can you help me with?",
    "How much leave does Maria Keller have?",
    "Which accounts do we have in Berlin?",
    "Summarise our last conversation in one sentence.",
    "What should I prepare for tomorrow's visit?",
    "Write a short, friendly reminder about the open invoice.",
)
TOOL_QUESTIONS = (
    "Which opportunities does Contoso have?",
    "Which accounts do we have in Berlin?",
)


class Talk(Protocol):
    """One user's side. Everything stays as it is until the question is asked, however often it is looked at."""

    def begins_anew(self) -> bool:
        """Whether the next question begins another conversation."""

    def pause_s(self) -> float:
        """From the end of the last answer to the next question."""

    def next_question(self) -> Question:
        """To be asked now."""


class SmallTalk:
    """Questions at random, so many a conversation as the entry says."""

    def __init__(self, entry: UserEntry, chance: Random, questions: Sequence[str] = QUESTIONS) -> None:
        self._entry = entry
        self._chance = chance
        self._questions = entry.questions or tuple(questions)
        self._left = 0
        self._fresh = False
        self._pause_s: float | None = None

    def begins_anew(self) -> bool:
        if self._left <= 0:
            self._left = max(1, round(self._entry.turns.draw(self._chance)))
            self._fresh = True
        return self._fresh

    def pause_s(self) -> float:
        if self._pause_s is None:
            self._pause_s = self._entry.think_s.draw(self._chance)
        return self._pause_s

    def next_question(self) -> Question:
        self._left -= 1
        self._fresh = False
        self._pause_s = None
        return question_of(self._entry, self._chance.choice(self._questions), self._chance)


def question_of(entry: UserEntry, text: str, chance: Random) -> Question:
    """``text``, asked of the model that the entry names, for a reply as long as chance has it."""
    if entry.simulated is not None:
        tokens = max(1, round(entry.simulated.reply_tokens.draw(chance)))
        return Question(text, entry.simulated.model_id(tokens))
    return Question(text, entry.model_id)
