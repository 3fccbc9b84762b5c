"""What is known of one answer while it comes in: its times, its text by steps, what it used, and whether it is complete."""

from __future__ import annotations

from typing import Protocol

from serve_app.capacity.samples import MAX_GAPS

SAME_ARRIVAL_S = 0.0005
"""Pieces nearer than this came in one packet, and are one arrival."""


class BrokenPromise(Exception):
    """The server did what the protocol says it never does."""


class Refused(Exception):
    """The server said no, with a code."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Hearing(Protocol):
    """Told of text as it comes, so that somebody may leave in the middle of an answer."""

    def __call__(self, answer: Answer) -> None: ...


class Answer:
    """Whoever reads a wire fills it in. Times are of ``load_tests.clock``; ``due_at`` is what latencies count from.

    ``expected``: the whole text, where it is known beforehand (a simulated model's); anything else is a broken promise.
    """

    def __init__(self, due_at: float, expected: str | None = None) -> None:
        self.due_at = due_at
        self.expected = expected
        self.first_text_at: float | None = None
        self.ended_at: float | None = None
        self.gaps_s: list[float] = []
        self.arrivals = 0
        self.steps = [""]
        self.turn_id = ""
        self.last_seq = 0
        self.response = ""
        self.output_tokens = 0
        self.input_tokens = 0
        self.tool_calls = 0
        self.resumed = 0
        self.code = ""
        self.detail = ""
        self._last_text_at = 0.0

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    @property
    def text(self) -> str:
        """What has been shown, void steps left out."""
        return "".join(self.steps)

    def came(self, text: str, at: float) -> None:
        """A piece of text arrived."""
        self.steps[-1] += text
        if self.first_text_at is None:
            self.first_text_at = self._last_text_at = at
            self.arrivals = 1
            return
        gap_s = at - self._last_text_at
        if gap_s < SAME_ARRIVAL_S:
            return  # the last arrival stays where it was, so that gaps add up to the whole time
        self._last_text_at = at
        self.arrivals += 1
        if len(self.gaps_s) < MAX_GAPS:
            self.gaps_s.append(gap_s)

    def new_step(self) -> None:
        if self.steps[-1]:
            self.steps.append("")

    def void_step(self) -> None:
        """What the step has shown is void; its text comes again."""
        self.steps[-1] = ""

    def end(self, at: float, response: str) -> None:
        """The answer is complete. Raises BrokenPromise where it is not what was shown, or not what was to come."""
        self.ended_at = at
        self.response = response
        if response != self.text:
            raise BrokenPromise("the answer is not the text that was shown")
        if self.expected is not None and response.strip() != self.expected.strip():
            raise BrokenPromise(f"the answer is not the text that was sent: {_difference(response, self.expected)}")

    def fail(self, at: float, code: str, detail: str = "") -> None:
        """The turn ended otherwise than with an answer, which is a failure and no broken promise."""
        self.ended_at = at
        self.code = code
        self.detail = detail


def _difference(got: str, expected: str) -> str:
    got_words, words = got.split(), expected.split()
    for position, (one, other) in enumerate(zip(got_words, words, strict=False)):
        if one != other:
            return f"word {position + 1} is {one[:40]!r} instead of {other[:40]!r}"
    return f"{len(got_words)} words instead of {len(words)}"
