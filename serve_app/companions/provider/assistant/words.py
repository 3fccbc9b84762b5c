"""Words and what they mean to the matcher: stems, stop words, and verbs that say what a tool does."""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def word_set(text: str) -> frozenset[str]:
    """The words of a text, which are separated by spaces, as a set."""
    return frozenset(text.split())


STOP_WORDS: Final = word_set(
    """a about above after again all also am an and another any are as at be been before being below between both but
by can could did do does doing done during each else ever every few for from further had has have having he
hello her here hers hey hi him his how i if in into is it its itself just last later let like ll many may me
might more most much must my myself need no nor not now of off on once one only or other our out over own per
please really right s same shall she should so some still such t tell than thank thanks that the their them then
there these they thing things this those through to today too under until up us use using very want was we well
were what when where which while whom whose why will with within without would yes yet you your example value
name id instance give whose currently current know"""
)

# What a tool's first word, or a word of the question, says about the kind of action.
VERBS: Final = {
    "list": frozenset({"list", "show", "which", "all", "display", "enumerate", "browse"}),
    "find": frozenset({"find", "search", "lookup", "look", "query", "who", "where", "locate", "discover"}),
    "get": frozenset({"get", "fetch", "read", "retrieve", "detail", "details", "status", "describe"}),
    "change": frozenset({"update", "change", "set", "move", "edit", "modify", "mark", "rename", "raise", "lower"}),
    "create": frozenset({"create", "add", "insert", "schedule", "book", "register", "write", "send", "post"}),
    "delete": frozenset({"delete", "remove", "cancel", "drop", "erase"}),
}
ACTING: Final = frozenset({"change", "create", "delete"})
QUESTION_WORDS: Final = frozenset({"what", "which", "who", "whose", "when", "where", "why", "how", "is", "are", "does"})


def words(text: str) -> list[str]:
    """Lower-case words; a possessive `'s` is dropped."""
    found = (word.lower().replace("’", "'") for word in _WORD.findall(text))
    return [word.removesuffix("'s") for word in found]


def name_words(name: str) -> list[str]:
    """Words of an identifier: `listOpenDeals`, `list_open_deals` and `list-open-deals` alike."""
    return words(_CAMEL.sub(" ", name).replace("_", " "))


def stem(word: str) -> str:
    """A crude stem: plural, -ing and -ed endings removed. Both sides of a comparison go through it."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 5 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return stem(word[:-1]) if word.endswith(("ings", "eds")) else word[:-1]
    for ending in ("ing", "ed"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            base = word[: -len(ending)]
            return base[:-1] if base[-1] == base[-2] and base[-1] not in "ls" else base
    return word


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def verb_kinds(found: list[str]) -> set[str]:
    """The kinds of action these words speak of."""
    return {kind for kind, verbs in VERBS.items() if any(word in verbs for word in found)}
