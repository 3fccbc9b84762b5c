"""Tool results as friendly Markdown: a sentence, then a table or a list made from the JSON that came back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from serve_app.companions.provider.assistant.conversation import ToolOutcome
from serve_app.companions.provider.assistant.words import VERBS, name_words, word_set

_MAX_ROWS: Final = 12
_MAX_COLUMNS: Final = 7
_MAX_TEXT_CHARS: Final = 2000
_MAX_CELL_CHARS: Final = 120
_QUOTATION: Final = re.compile(r"\A=====[^\n]* begins [0-9a-f]{16}\n(.*)\n=====[^\n]* ends [0-9a-f]{16}\Z", re.DOTALL)
"""How a caller may mark a result as somebody else's words."""
_ERROR_PREFIX: Final = re.compile(r"^(?:error executing tool [\w./-]+:?\s*|error\b:?\s*)", re.IGNORECASE)
_MONEY: Final = word_set("amount price value budget cost total")
_IRREGULAR: Final = {"person": "people", "child": "children"}
_ALL_VERBS: Final = frozenset(verb for verbs in VERBS.values() for verb in verbs)


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's result, read: rows, single facts, plain text, or an error sentence."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    error: str = ""
    empty_list: bool = False


def read_result(text: str) -> Result:
    """Read the text of a tool message: bare JSON, an MCP result, an error object, or plain text."""
    stripped = _QUOTATION.sub(r"\1", text.strip())
    try:
        value = msgspec.json.decode(stripped)
    except msgspec.DecodeError:
        if re.match(r"error\b", stripped, re.IGNORECASE):
            return Result(error=_ERROR_PREFIX.sub("", stripped) or stripped)
        return Result(text=stripped)
    return _read_value(value)


def word_outcomes(outcomes: Sequence[ToolOutcome]) -> str:
    """One Markdown text for all results of a turn, in order."""
    return "\n\n".join(word_result(outcome, result) for outcome, result in to_be_told(outcomes))


def to_be_told(outcomes: Sequence[ToolOutcome]) -> list[tuple[ToolOutcome, Result]]:
    """The results that are worth telling: without a lookup that only served a later call, and a failure of one tool where
    another knew it."""
    read = [(outcome, read_result(outcome.result)) for outcome in outcomes]
    good = [result for _, result in read if not result.error]
    last = len(read) - 1
    told = []
    for index, (outcome, result) in enumerate(read):
        if index < last and good and _only_served(result, [later for later, _ in read[index + 1 :]]):
            continue
        if result.error and _said_elsewhere(outcome, read):
            continue
        told.append((outcome, result))
    return told


def word_result(outcome: ToolOutcome, result: Result) -> str:
    """One result in words."""
    noun = noun_of(outcome.name)
    about = _about(outcome.arguments)
    if result.error:
        wanted = plural(noun) if "list" in name_words(outcome.name) else noun
        return f"I could not get the {wanted}{about}: {_sentence(result.error)}"
    if result.empty_list:
        return f"I found no {plural(noun)}{about}."
    if result.rows:
        return _word_rows(noun, about, result)
    if result.facts:
        return _word_facts(outcome, noun, about, result.facts)
    if result.text:
        cut = result.text[:_MAX_TEXT_CHARS]
        more = " …" if len(result.text) > _MAX_TEXT_CHARS else ""
        return f"The tool `{outcome.name}` answers:\n\n{cut}{more}"
    return f"The tool `{outcome.name}` finished without a result."


def _read_value(value: Any) -> Result:
    if isinstance(value, dict):
        return _read_object(value)
    if isinstance(value, list):
        if not value:
            return Result(empty_list=True)
        if all(isinstance(one, dict) for one in value):
            if all({"type", "text"} <= one.keys() for one in value):  # MCP content blocks
                return read_result("\n".join(str(one["text"]) for one in value))
            return Result(rows=value)
        return Result(text="\n".join(f"- {cell('', one)}" for one in value[:_MAX_ROWS]))
    return Result(text="" if value is None else str(value))


def _read_object(value: dict[str, Any]) -> Result:
    failed = value.get("is_error") is True or value.get("isError") is True or value.get("ok") is False
    problem = value.get("error")
    if failed or (problem and not isinstance(problem, bool)):
        return Result(error=_problem_text(value))
    for key in ("structured_content", "structuredContent", "result", "content"):
        inner = value.get(key)
        if inner is not None and (key != "content" or isinstance(inner, list)) and set(value) <= {
            "structured_content", "structuredContent", "result", "content", "is_error", "isError", "ok", "_meta", "meta",
            "resultType", "result_type", "truncated",
        }:  # fmt: skip
            return _read_value(inner) if not isinstance(inner, str) else read_result(inner)
    lists = [(key, inner) for key, inner in value.items() if isinstance(inner, list)]
    for key, inner in lists:
        if inner and all(isinstance(one, dict) for one in inner):
            return Result(rows=inner, facts={name: one for name, one in value.items() if name != key})
    if len(lists) == 1 and not lists[0][1]:
        return Result(empty_list=True)
    return Result(facts=value)


def _problem_text(value: dict[str, Any]) -> str:
    problem: Any = value.get("error") or value.get("message") or value.get("content") or "it failed"
    if isinstance(problem, dict):
        problem = problem.get("message") or problem.get("code") or problem
    if isinstance(problem, list):
        problem = " ".join(str(one.get("text", "")) if isinstance(one, dict) else str(one) for one in problem)
    return _ERROR_PREFIX.sub("", str(problem).strip()) or "it failed"


def _only_served(result: Result, later: Sequence[ToolOutcome]) -> bool:
    """Whether an id of this result is an argument of a later call: then the later result says it all."""
    rows = result.rows or ([result.facts] if result.facts else [])
    ids = {str(one) for row in rows for key, one in row.items() if key.endswith("id")}
    return any(str(value) in ids for call in later for value in call.arguments.values()) and len(rows) <= 3


def _said_elsewhere(failed: ToolOutcome, read: Sequence[tuple[ToolOutcome, Result]]) -> bool:
    """Whether another tool, asked for the same thing, knew it: then it does not matter that this one did not."""
    return any(
        not result.error and outcome.name != failed.name and set(_texts(outcome)) & set(_texts(failed))
        for outcome, result in read
    )


def _texts(outcome: ToolOutcome) -> list[str]:
    return [value for value in outcome.arguments.values() if isinstance(value, str)]


def _word_rows(noun: str, about: str, result: Result) -> str:
    rows = result.rows
    total = result.facts.get("total")
    count = total if isinstance(total, int) and total >= len(rows) else len(rows)
    lines = [f"I found {count} {noun if count == 1 else plural(noun)}{about}:", ""]
    columns = _columns(rows)
    lines.append("| " + " | ".join(label(column) for column in columns) + " |")
    lines.append("|" + "|".join(" ---: " if _is_number(rows[0].get(column)) else " --- " for column in columns) + "|")
    lines += [
        "| " + " | ".join(cell(column, row.get(column), row) for column in columns) + " |" for row in rows[:_MAX_ROWS]
    ]
    if count > _MAX_ROWS or count > len(rows):
        lines += ["", f"… and {count - min(len(rows), _MAX_ROWS)} more."]
    elif len(rows) > 1 and all(_is_number(row.get("amount")) for row in rows):
        currency = {row.get("currency") for row in rows}
        if len(currency) == 1:
            whole = {"amount": sum(row["amount"] for row in rows), "currency": currency.pop()}
            lines += ["", f"Together they are worth **{cell('amount', whole['amount'], whole)}**."]
    return "\n".join(lines)


def _word_facts(outcome: ToolOutcome, noun: str, about: str, facts: dict[str, Any]) -> str:
    verb = next((word for word in name_words(outcome.name) if word in _ALL_VERBS), "")
    if len(facts) == 1:
        (key, value), = facts.items()  # fmt: skip
        return f"The {label(key).lower()}{about} is **{cell(key, value)}**."
    done = verb in VERBS["change"] | VERBS["create"] | VERBS["delete"]
    title = "Done. This is how it stands now:" if done else f"Here is the {noun}{about}:"
    lines = [f"- **{label(key)}:** {cell(key, value, facts)}" for key, value in facts.items()
             if value is not None and key != "currency"]  # fmt: skip
    return "\n".join([title, "", *lines])


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """The most telling columns: no nested values, nothing that is the same nothing everywhere, and not too many."""
    keys = list(dict.fromkeys(key for row in rows[:_MAX_ROWS] for key in row))
    kept = []
    for key in keys:
        values = [row.get(key) for row in rows[:_MAX_ROWS]]
        if (
            key == "currency"
            or all(value is None for value in values)
            or any(isinstance(v, (dict, list)) for v in values)
        ):
            continue
        if len(rows) > 1 and isinstance(values[0], str) and len(set(values)) == 1 and len(keys) > 4:
            continue  # every row says the same: the sentence above has said it
        kept.append(key)
    return kept[:_MAX_COLUMNS] or keys[:_MAX_COLUMNS]


def cell(key: str, value: Any, row: Mapping[str, Any] | None = None) -> str:
    """A value as it is shown; an amount has its row's currency behind it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        number = f"{value:,.0f}" if float(value).is_integer() and set(name_words(key)) & _MONEY else f"{value:g}"
        currency = (row or {}).get("currency")
        return f"{number} {currency}" if currency and set(name_words(key)) & _MONEY else number
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= _MAX_CELL_CHARS else text[: _MAX_CELL_CHARS - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def label(key: str) -> str:
    """A field's name in words: `close_date` is the `Close date`."""
    text = " ".join(name_words(key)).replace(" id", " ID")
    return "ID" if text == "id" else text[:1].upper() + text[1:]


def noun_of(tool_name: str) -> str:
    """What a tool gives: `crm__list_opportunities` an `opportunity`."""
    local = re.split(r"__|[./:]", tool_name)[-1]
    parts = [word for word in name_words(local) if word not in _ALL_VERBS]
    return _singular(" ".join(parts)) if parts else f"result of `{tool_name}`"


def _about(arguments: dict[str, Any]) -> str:
    """` for Contoso`: the first argument that reads like a subject."""
    for value in arguments.values():
        if isinstance(value, str) and 0 < len(value) <= 60:
            return f" for {value}"
    return ""


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def plural(noun: str) -> str:
    """Several of it."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("`"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:_MAX_TEXT_CHARS]
    return text if text.endswith((".", "!", "?")) else text + "."
