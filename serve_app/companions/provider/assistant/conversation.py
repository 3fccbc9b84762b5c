"""A request's messages, read as a conversation: the question, what came before, and the tool rounds of this turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from serve_app.companions.provider.requests import Message


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A call that was made in this turn, and the text that came back."""

    name: str
    arguments: dict[str, Any]
    result: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the assistant goes by. `rounds` holds the tool rounds since the last user message, in order."""

    system: str
    earlier: tuple[str, ...]
    question: str
    rounds: tuple[tuple[ToolOutcome, ...], ...]

    @property
    def outcomes(self) -> list[ToolOutcome]:
        """All tool outcomes of this turn, in order."""
        return [outcome for one in self.rounds for outcome in one]

    @classmethod
    def read(cls, messages: list[Message]) -> Conversation:
        """Read a request's messages."""
        system = "\n".join(message.text for message in messages if message.role in ("system", "developer"))
        asked = [message.text for message in messages if message.role == "user"]
        last = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
        results = {message.tool_call_id: message.text for message in messages[last + 1 :] if message.role == "tool"}
        rounds = tuple(
            tuple(
                ToolOutcome(call.function.name, _arguments(call.function.arguments), results.get(call.id, ""))
                for call in message.tool_calls
            )
            for message in messages[last + 1 :]
            if message.tool_calls
        )
        return cls(system, tuple(asked[:-1]), asked[-1] if asked else "", rounds)


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
