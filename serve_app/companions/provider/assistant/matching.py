"""Which of the offered tools a question means: overlap of words with tool names and descriptions.

A word of the tool's name weighs most, then a word of the description that few other tools have. What the question
gives as arguments counts too, and a tool that changes something is only taken when the question asks for a change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from serve_app.companions.provider.assistant.arguments import Filled, fill_arguments, is_id_argument
from serve_app.companions.provider.assistant.spans import Span
from serve_app.companions.provider.assistant.words import (
    ACTING,
    STOP_WORDS,
    VERBS,
    content_stems,
    name_words,
    stem,
    verb_kinds,
    words,
)
from serve_app.companions.provider.requests import ToolFunction

THRESHOLD: Final = 2.5
_SEPARATOR: Final = re.compile(r"__|[./:]")
_ALL_VERBS: Final = frozenset(verb for verbs in VERBS.values() for verb in verbs)


@dataclass(frozen=True, slots=True)
class ToolWords:
    """A tool's name and description as the matcher sees them."""

    nouns: frozenset[str]
    kinds: frozenset[str]
    described: frozenset[str]
    server: frozenset[str]


@dataclass(frozen=True, slots=True)
class Match:
    """A tool that may be meant, with the arguments it would get. Higher scores fit better."""

    tool: ToolFunction
    filled: Filled
    score: float


@lru_cache(maxsize=1024)
def read_name(name: str, description: str | None) -> ToolWords:
    """Split a tool's name (`crm.list_opportunities`, `crm__list_opportunities`) and stem its words."""
    *server, local = _SEPARATOR.split(name)
    parts = name_words(local)
    verbs = [word for word in parts if word in _ALL_VERBS]
    nouns = {stem(word) for word in parts if word not in verbs} or {stem(word) for word in parts}
    return ToolWords(
        nouns=frozenset(nouns - STOP_WORDS),
        kinds=frozenset(verb_kinds(verbs[:1])),
        described=frozenset(content_stems(description or "")) - frozenset(nouns),
        server=frozenset(stem(word) for part in server for word in name_words(part)),
    )


def tool_vocabulary(tools: Sequence[ToolFunction]) -> frozenset[str]:
    """Stems of all words in the tools' names and argument names."""
    found: set[str] = set()
    for tool in tools:
        read = read_name(tool.name, tool.description)
        found |= read.nouns | read.server
        properties = (tool.parameters or {}).get("properties")
        for argument in properties if isinstance(properties, dict) else ():
            found |= {stem(word) for word in name_words(argument)}
    return frozenset(found)


def rank_tools(
    tools: Sequence[ToolFunction], text: str, spans: Sequence[Span], scored_by: str | None = None
) -> list[Match]:
    """All tools with some likeness to the question, the best first.

    Args:
        tools: What is offered.
        text: The question, from which arguments are filled.
        spans: What the question names.
        scored_by: Another text to compare with the tools, for a follow-up such as "and Fabrikam?".
    """
    asked = scored_by if scored_by is not None else text
    # Words inside a name belong to the name: a customer called "Balance" is not a wish for a balance.
    named = {stem(word) for span in spans if span.kind in ("name", "quote") for word in words(span.text)}
    asked_stems = list(dict.fromkeys(one for one in content_stems(asked) if one not in named))
    kinds = verb_kinds(words(asked))
    read = {tool.name: read_name(tool.name, tool.description) for tool in tools}
    spread = Counter(word for one in read.values() for word in one.described | one.nouns)
    matches = []
    for tool in tools:
        one = read[tool.name]
        likeness = sum(
            3.0 if word in one.nouns else (2.0 if spread[word] <= 2 else 1.0) if word in one.described else 0.0
            for word in asked_stems
        )
        likeness += 0.5 * len(one.server & set(asked_stems))
        filled = fill_arguments(tool.parameters or {}, text, spans)
        likeness += 2.0 * _takes_an_id_by_its_shape(tool, filled)
        acts_unasked = bool(one.kinds & ACTING) and not one.kinds & kinds and not _is_its_verb(tool.name, asked)
        if likeness < 1 or acts_unasked:
            continue
        score = likeness + _verb_score(one, kinds) + _evidence_score(tool, filled)
        score -= 0.25 * len(one.nouns - set(asked_stems))
        matches.append(Match(tool, filled, score))
    return sorted(matches, key=lambda match: -match.score)


def _is_its_verb(name: str, asked: str) -> bool:
    """Whether the question uses the very verb of the tool's name."""
    return bool(set(name_words(_SEPARATOR.split(name)[-1])) & _ALL_VERBS & set(words(asked)))


def _verb_score(tool: ToolWords, kinds: set[str]) -> float:
    if tool.kinds & kinds:
        return 1.5
    return -1.5 if kinds & ACTING and tool.kinds and not tool.kinds & ACTING else 0.0


def _takes_an_id_by_its_shape(tool: ToolFunction, filled: Filled) -> bool:
    """Whether an id in the question looks like the example in an id argument's description (`OPP-1001`)."""
    properties = (tool.parameters or {}).get("properties") or {}
    for name in filled.found:
        if is_id_argument(name):
            prefix = str(filled.arguments[name]).split("-")[0]
            if re.search(rf"\b{re.escape(prefix)}-\d", str(properties[name].get("description") or ""), re.IGNORECASE):
                return True
    return False


def _evidence_score(tool: ToolFunction, filled: Filled) -> float:
    score = -1.5 * len(filled.missing)
    if filled.found:
        score += 1.0
    elif not filled.missing and (tool.parameters or {}).get("properties"):
        score -= 1.5  # it could take something, and the question gives it nothing
    if any(is_id_argument(name) for name in filled.found):
        score += 1.0
    return score
