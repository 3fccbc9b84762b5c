"""What every way in has in common: where it leads, who comes, and the conversation that is held over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from load_tests.answer import Answer

OPEN_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 16 * 2**20


class Visitor(Struct, frozen=True):
    """Where to, and as whom. ``headers`` say who one is; ``number`` counts the users of a process."""

    base_url: str
    user: str
    headers: dict[str, str]
    number: int = 0


class Question(Struct, frozen=True):
    """``text`` to ``model_id`` (the graph's default if None)."""

    text: str
    model_id: str | None = None


class LeftInMidAnswer(Exception):
    """Raised by whoever listens, to break the connection; the way comes back and goes on."""


Listener = Callable[[Answer], None]
"""Called after each arrival; may raise LeftInMidAnswer."""


class Way(Protocol):
    """One client. Not to be used by two at a time."""

    def open(self) -> None:
        """Connects. Raises OSError where that cannot be done, Refused where the server says no."""

    def new_conversation(self) -> None:
        """What is asked from now on belongs to another conversation. Raises as ``open`` does."""

    def ask(self, question: Question, answer: Answer, listener: Listener | None = None) -> None:
        """Asks, and reads to the answer's end.

        Raises BrokenPromise, Refused, and OSError where the connection broke too often.
        """

    def tend(self) -> None:
        """Between questions, now and then: answers what the server wants to know. Raises OSError if it has gone."""

    def close(self) -> None:
        """Idempotent."""
