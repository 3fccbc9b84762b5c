"""One call of a model, through all the attempts it takes."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.domain.generation import ModelRequest
from serve_app.models.port import TextSink
from serve_app.models.token_estimate import prompt_tokens


class Call:
    """What is asked, and whether anything of an answer has been shown: from then on no other attempt can take its place.

    ``began`` and ``due`` are seconds of the gateway's clock.
    """

    __slots__ = ("_on_text", "_prompt_tokens", "began", "chars", "due", "request", "shown")

    def __init__(self, request: ModelRequest, on_text: TextSink, began: float, due: float) -> None:
        self.request = request
        self.began = began
        self.due = due
        self.shown = False
        self.chars = 0
        self._on_text = on_text
        self._prompt_tokens: int | None = None

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens the prompt has."""
        if self._prompt_tokens is None:
            self._prompt_tokens = prompt_tokens(self.request)
        return self._prompt_tokens

    def show(self, pieces: Sequence[str]) -> None:
        self.shown = True
        self.chars += sum(map(len, pieces))
        self._on_text(pieces)
