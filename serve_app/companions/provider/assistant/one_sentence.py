"""Tool results in one sentence: what the question asks for of them, and what is left of a list after its first three rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serve_app.companions.provider.assistant.conversation import ToolOutcome
from serve_app.companions.provider.assistant.wording import (
    cell,
    label,
    noun_of,
    plural,
    to_be_told,
    word_result,
)
from serve_app.companions.provider.assistant.words import VERBS, content_stems, name_words, stem, words

_SHOWN_ROWS: Final = 3
_SHOWN_FIELDS: Final = 2
_NAMES: Final = ("name", "employee", "account", "title")
_LEADING: Final = ("name", "employee", "account", "id", "employee_id", "currency", "year")
_SAID_OTHERWISE: Final = {
    "left": "remaining", "status": "stage", "deal": "opportunity", "when": "date", "where": "city", "who": "owner",
    "worth": "amount", "big": "amount", "large": "amount", "much": "amount", "likely": "probability", "chance": "probability",
    "mail": "email", "job": "title", "boss": "manager", "long": "hired",
}  # fmt: skip
"""A word of a question, and the word of a field that it asks for."""


def outcomes_in_one_sentence(outcomes: Sequence[ToolOutcome], question: str, with_ids: bool) -> str:
    """One sentence for each result, in order."""
    asked = _asked_stems(question)
    sentences = []
    for outcome, result in to_be_told(outcomes):
        if result.rows:
            total = result.facts.get("total")
            count = total if isinstance(total, int) and total >= len(result.rows) else len(result.rows)
            sentences.append(_of_rows(outcome, result.rows, count, asked, with_ids))
        elif result.facts:
            sentences.append(_of_facts(outcome, result.facts, asked, with_ids))
        else:
            sentences.append(word_result(outcome, result))
    return " ".join(sentences)


def _asked_stems(question: str) -> frozenset[str]:
    said = [stem(word) for word in words(question)]
    return frozenset(
        [*content_stems(question), *(stem(_SAID_OTHERWISE[one]) for one in said if one in _SAID_OTHERWISE)]
    )


def _asked_fields(row: Mapping[str, Any], asked: frozenset[str]) -> list[str]:
    """The fields that the question asks for, those that it says more of first."""
    overlap = {
        key: len({stem(word) for word in name_words(key)} & asked)
        for key in row
        if key not in ("currency", *_NAMES[:1])
    }
    # "How many days are left?" asks for one of four fields with days; "left" says which.
    most = max(overlap.values(), default=0)
    return [key for key, count in overlap.items() if count == most and row[key] is not None] if most else []


def _of_facts(outcome: ToolOutcome, facts: Mapping[str, Any], asked: frozenset[str], with_ids: bool) -> str:
    named = _named(facts, with_ids)
    done = VERBS["change"] & set(name_words(outcome.name))
    fields = [key for key in facts if key in outcome.arguments and key != "id"] if done else _asked_fields(facts, asked)
    fields = [key for key in fields if not key.endswith("id")] or [key for key in facts if key not in _LEADING]
    told = [_told(key, facts, f" of {named}" if key == fields[0] else "") for key in fields[:_SHOWN_FIELDS]]
    said = " and ".join(told)
    return f"Done: {said} now." if done else f"{said[:1].upper()}{said[1:]}."


def _told(key: str, facts: Mapping[str, Any], owner: str) -> str:
    name = label(key).lower()
    return f"the {name}{owner} {'are' if name.endswith('days') else 'is'} {cell(key, facts[key], facts)}"


def _of_rows(
    outcome: ToolOutcome, rows: Sequence[Mapping[str, Any]], count: int, asked: frozenset[str], with_ids: bool
) -> str:
    if count == 1:
        return _of_facts(outcome, rows[0], asked, with_ids)
    shown = ", ".join(_named(row, with_ids) for row in rows[:_SHOWN_ROWS])
    more = f" and {count - _SHOWN_ROWS} more" if count > _SHOWN_ROWS else ""
    return f"There are {count} {plural(noun_of(outcome.name))}: {shown}{more}."


def _named(row: Mapping[str, Any], with_ids: bool) -> str:
    name = next((str(row[key]) for key in _NAMES if row.get(key)), "")
    key = next((str(value) for field, value in row.items() if field.endswith("id") and value), "")
    if not name or not key:
        return name or key or "It"
    return f"{name} ({key})" if with_ids else name
