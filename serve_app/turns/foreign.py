"""Others' words in a turn: where a model may have read instructions that are not its user's.

The user's own text never counts. What does: the results of tools whose server the operator does not trust, files, and what
a model has written after it read either, because the words may speak through it. The conversation's history counts as the
turn's own results do: the model is shown it again, and an instruction does not go stale with the turn it came in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from serve_app.domain.conversation import Message, Part, ToolResultPart
from serve_app.domain.turns import Query, StepRecord

FILE = "a file"
GIVEN_RESULT = "a result of the caller's own tools"
EARLIER = "an earlier answer"
MAX_NAMED = 3


def sources(
    query: Query, history: Iterable[Message], steps: Iterable[StepRecord], trusted_servers: Collection[str]
) -> tuple[str, ...]:
    """Where others' words have come from, each once, in order; empty when a model has read the user's alone.

    A result that does not say so itself (an older version stored it) counts unless its server is among ``trusted_servers``.
    """
    found: dict[str, None] = {}
    for message in history:
        if message.role == "assistant":
            found.update(dict.fromkeys(_of(message.parts, trusted_servers)))
    if query.attachments:
        found[FILE] = None
    if query.given is not None and any(message.role == "tool" for message in query.given.messages):
        found[GIVEN_RESULT] = None
    for step in steps:
        found.update(dict.fromkeys(_of(step.parts, trusted_servers)))
    named = [source for source in found if source != EARLIER]
    return tuple(named) if named else tuple(found)


def sentence(tool: str, found: Sequence[str]) -> str:
    """Why a call of ``tool`` needs approval, for people."""
    named = ", ".join(found[:MAX_NAMED]) + (" and others" if len(found) > MAX_NAMED else "")
    return (
        f"{tool} changes something, and the assistant has read text that is not yours ({named}). "
        "Is this what you asked for?"
    )


def _of(parts: Iterable[Part], trusted_servers: Collection[str]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, ToolResultPart):
            if part.untrusted or (part.ok and part.name.partition(".")[0] not in trusted_servers):
                yield part.name
        elif part.untrusted:
            yield EARLIER
