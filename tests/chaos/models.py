"""What the simulated provider says in this suite, and therefore what every finished answer must be, letter by letter.

Every word of an answer occurs once in it, so that a piece that is lost or doubled shows in the text itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOOK = "desk__look"
BOOK = "desk__book"


@dataclass(frozen=True)
class Round:
    """One model call: some words, then perhaps tool calls."""

    words: int
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model of the provider's script. ``token_ms`` is the pace of its words."""

    name: str
    rounds: tuple[Round, ...]
    token_ms: float
    ttft_ms: float = 100.0

    def text_of(self, position: int) -> str:
        """What one of its model calls says."""
        return "".join(f"{self.name}.{position}.{word} " for word in range(self.rounds[position].words))

    @property
    def answer(self) -> str:
        """The whole of a finished turn's text."""
        return "".join(self.text_of(position) for position in range(len(self.rounds)))

    def calls_of(self, tool: str) -> int:
        """How often a turn calls the tool."""
        return sum(each.calls.count(tool) for each in self.rounds)

    def rule(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "match": {"model": self.name},
            "order": "rounds",
            "responses": [
                {
                    "text": self.text_of(position),
                    "tool_calls": [{"name": call, "arguments": {"item": f"{position}"}} for call in each.calls],
                    "token_ms": self.token_ms,
                    "ttft_ms": self.ttft_ms,
                }
                for position, each in enumerate(self.rounds)
            ],
        }


TALK = Model("talk", (Round(100),), 25)
"""Words alone, for 2.6 s."""
STEPS = Model("steps", (Round(25, (LOOK,)), Round(25, (BOOK,)), Round(40)), 25)
"""Two rounds of tools, about 3 s."""
PAIR = Model("pair", (Round(40, (LOOK, BOOK)), Round(60)), 25)
"""Two tools at once in the middle, about 3 s."""
SMALL = Model("small", (Round(4, (BOOK,)), Round(8)), 60, 20)
"""Few events, each of its own: for cuts at every one of them."""
LONG = Model("long", (Round(250),), 40)
"""Words for 10 s."""
BRIEF = Model("brief", (Round(100),), 40)
"""Words for 4 s."""
ENDLESS = Model("endless", (Round(1000),), 40)
"""Words for 40 s: it is stopped before."""

MODELS = {model.name: model for model in (TALK, STEPS, PAIR, SMALL, LONG, BRIEF, ENDLESS)}


def provider_script() -> dict[str, Any]:
    """The script file's content."""
    return {"rules": [model.rule() for model in MODELS.values()]}


def models_file(base_url: str) -> dict[str, Any]:
    """The graph's models file: this provider alone."""
    return {
        "providers": [
            {"name": "outside", "kind": "openai", "base_url": base_url, "models": "*", "chat_default": TALK.name}
        ]
    }
