"""Fills a tool's arguments from its JSON schema and what the question names.

An argument is *found* when something in the question speaks for it: a listed value, a date, a number or a name beside
the argument's own name, an id of the right shape. A required argument that is not found gets a plausible value and is
reported as missing, so that the caller can look it up with another tool or leave the call out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serve_app.companions.provider.assistant.spans import Span, as_date, as_number, find_spans
from serve_app.companions.provider.assistant.words import STOP_WORDS, name_words, stem, word_set, words

_PLACES: Final = word_set("department city location country region team place area industry office")
_SUBJECTS: Final = word_set("name account customer company employee person user client title")
_FREE: Final = word_set(
    """query q question text message prompt content input search body note comment topic term keyword subject"""
)
_QUERY: Final = word_set("query q question search topic term keyword")
_MONEY: Final = word_set("amount price value budget cost total sum")
_COUNTS: Final = word_set("limit top n count max size number")
_OPTIONAL_SCORE: Final = 1.5
_MAX_DEPTH: Final = 6
_JOINT: Final = re.compile(r"\s*(?:,|,?\s*\band\b|,?\s*\bor\b|&|\bvs\.?|\bversus\b)\s*", re.IGNORECASE)

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filled:
    """Arguments for one call, how many of them the question spoke for, and which required ones it did not."""

    arguments: dict[str, Any]
    found: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    # Other values the question gives for one argument ("Contoso and Fabrikam"): each is worth a call of its own.
    also: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class _Work:
    """One filling under way."""

    root: Schema
    text: str
    spans: list[Span]
    values: dict[str, Any] = field(default_factory=dict)
    also: tuple[dict[str, Any], ...] = ()


def fill_arguments(schema: Schema, text: str, spans: Sequence[Span]) -> Filled:
    """Arguments for a tool with this input schema, from the question and the spans found in it."""
    properties = _properties(schema)
    required = [name for name in schema.get("required") or () if name in properties]
    work = _Work(schema, text, list(spans))
    plain = {name: _resolved(sub, schema) for name, sub in properties.items()}
    for name, sub in plain.items():
        _fill_listed(work, name, sub)
    for name, sub in plain.items():
        if name not in work.values:
            _fill_typed(work, name, sub, name in required)
    _fill_strings(work, {name: sub for name, sub in plain.items() if name not in work.values}, required)
    found = frozenset(work.values)
    missing = tuple(name for name in required if name not in found)
    for name in missing:
        work.values[name] = _plausible(plain[name], schema, name, text)
    ordered = {name: work.values[name] for name in properties if name in work.values}
    return Filled(ordered, found, missing, tuple({**ordered, **other} for other in work.also))


def schema_example(schema: Schema, text: str, everything: bool = False) -> dict[str, Any]:
    """A value that fits an object schema: found in the text where possible, plausible elsewhere.

    Args:
        schema: JSON schema of an object.
        text: Where to look for values.
        everything: Fill optional properties too.
    """
    filled = fill_arguments(schema, text, find_spans(text)).arguments
    if everything:
        for name, sub in _properties(schema).items():
            if name not in filled:
                filled[name] = _plausible(_resolved(sub, schema), schema, name, text)
    return filled


def is_id_argument(name: str) -> bool:
    """Whether an argument of this name takes an id."""
    return "id" in name_words(name) or name.lower().endswith("id")


def _properties(schema: Schema) -> dict[str, Schema]:
    properties = schema.get("properties")
    return {k: v for k, v in properties.items() if isinstance(v, dict)} if isinstance(properties, dict) else {}


def _resolved(sub: Schema, root: Schema) -> Schema:
    """Follow references and take the first alternative that is not null."""
    described = sub.get("description")
    for _ in range(_MAX_DEPTH):
        reference = sub.get("$ref")
        options = sub.get("anyOf") or sub.get("oneOf") or sub.get("allOf")
        if isinstance(reference, str) and reference.startswith("#/"):
            target: Any = root
            for part in reference[2:].split("/"):
                target = target.get(part, {}) if isinstance(target, dict) else {}
            sub = target if isinstance(target, dict) else {}
        elif isinstance(options, list):
            sub = next((one for one in options if isinstance(one, dict) and one.get("type") != "null"), {})
        else:
            break
    return {**sub, "description": described} if described else sub


def _kind(sub: Schema) -> str:
    kind = sub.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    if kind is None:
        kind = "object" if "properties" in sub else "string"
    return str(kind)


def _listed(sub: Schema) -> list[Any]:
    values = sub.get("enum")
    return values if isinstance(values, list) else [sub["const"]] if "const" in sub else []


def _in_text(value: Any, text: str) -> re.Match[str] | None:
    spelled = re.escape(str(value)).replace("_", "[ _-]").replace(r"\-", "[ _-]")
    return re.search(rf"(?<!\w){spelled}(?!\w)", text, re.IGNORECASE)


def _fill_listed(work: _Work, name: str, sub: Schema) -> None:
    """Values from a list are recognised wherever they stand, and no name is read into them."""
    many = _kind(sub) == "array"
    items = _resolved(sub.get("items") or {}, work.root) if many else sub
    hits = [(value, match) for value in sorted(_listed(items), key=lambda one: -len(str(one)))
            if isinstance(value, str) and (match := _in_text(value, work.text))]  # fmt: skip
    if not hits:
        return
    work.values[name] = [value for value, _ in hits] if many else hits[0][0]
    taken = [match.span() for _, match in (hits if many else hits[:1])]
    work.spans = [span for span in work.spans if not any(a < span.end and span.start < b for a, b in taken)]


def _fill_typed(work: _Work, name: str, sub: Schema, required: bool) -> None:
    kind = _kind(sub)
    if _listed(sub):
        return
    if kind in ("integer", "number"):
        _fill_number(work, name, sub, required)
    elif kind == "boolean":
        if any(stem(word) in {stem(one) for one in words(work.text)} for word in name_words(name)):
            work.values[name] = re.search(r"\b(?:not|without|no|don't)\b", work.text, re.IGNORECASE) is None
    elif kind == "array" and required:
        items = _resolved(sub.get("items") or {}, work.root)
        if _kind(items) in ("integer", "number"):
            found: list[Any] = [_number(span, _kind(items)) for span in work.spans if span.kind == "number"]
        else:
            found = [span.text for span in work.spans if span.kind in ("name", "quote", "id", "phrase")]
        if found:
            work.values[name] = found
    elif kind == "object" and required and _properties(sub):
        inner = fill_arguments({**sub, "$defs": work.root.get("$defs", {})}, work.text, work.spans)
        if inner.found:
            work.values[name] = inner.arguments
    elif kind == "string" and _wants_date(name, sub):
        for span in work.spans:
            day = as_date(span) if span.kind == "date" else None
            if day is not None:
                work.values[name] = f"{day.isoformat()}T00:00:00Z" if sub.get("format") == "date-time" else str(day)
                work.spans.remove(span)
                break


def _wants_date(name: str, sub: Schema) -> bool:
    return sub.get("format") in ("date", "date-time") or bool({"date", "day"} & set(name_words(name)))


def _fill_number(work: _Work, name: str, sub: Schema, required: bool) -> None:
    kind = _kind(sub)
    own = set(name_words(name))
    stems = {stem(word) for word in own}
    best: tuple[float, Span] | None = None
    for span in work.spans:
        if span.kind != "number" or not _in_bounds(as_number(span), sub):
            continue
        score = 0.5 if required else 0.0
        if stems & {stem(word) for word in (*span.before, *span.after[:2])}:
            score += 3
        if own & _MONEY and re.search(r"[€$£]\s*$", work.text[: span.start]):
            score += 2
        if own & _COUNTS and {"top", "first", "last", "limit"} & set(span.before[:2]):
            score += 3
        if score >= (0.5 if required else 2) and (best is None or score > best[0]):
            best = (score, span)
    if best is not None:
        work.values[name] = _number(best[1], kind)
        work.spans.remove(best[1])


def _in_bounds(value: float | None, sub: Schema) -> bool:
    return value is not None and sub.get("minimum", value) <= value <= sub.get("maximum", value)


def _number(span: Span, kind: str) -> float | int:
    value = as_number(span) or 0.0
    return round(value) if kind == "integer" or value.is_integer() else value


def _fill_strings(work: _Work, properties: dict[str, Schema], required: list[str]) -> None:
    """Give each name, id or quotation to the argument it fits best."""
    strings = {name: sub for name, sub in properties.items() if _kind(sub) == "string" and not _listed(sub)}
    pairs = sorted(
        (
            (-score, order, index, name)
            for order, (name, sub) in enumerate(strings.items())
            for index, span in enumerate(work.spans)
            if (score := _affinity(span, name, sub)) is not None
            and score >= (0 if name in required else _OPTIONAL_SCORE)
        ),
    )
    used: set[int] = set()
    for _, _, index, name in pairs:
        if name in work.values or index in used:
            continue
        group = _joined(work, index)
        used.update(group)
        work.values[name] = work.spans[group[0]].text
        if len(group) > 1 and not work.also:
            work.also = tuple({name: work.spans[other].text} for other in group[1:])
    for name in strings:
        if name not in work.values and name in required and set(name_words(name)) & _FREE:
            text = _free_text(work.text, set(name_words(name)))
            if text:
                work.values[name] = text


def _affinity(span: Span, name: str, sub: Schema) -> float | None:
    """How well a span fits a string argument; None when it cannot be meant."""
    own = set(name_words(name))
    description = str(sub.get("description") or "")
    takes_id = is_id_argument(name)
    if span.kind == "id":
        if not takes_id and not re.search(r"\bids?\b", description, re.IGNORECASE):
            return None
        prefixes = set(re.findall(r"\b([A-Z]{2,8})-\d", description))
        if prefixes and span.text.split("-")[0].upper() not in prefixes:
            return None
        return 4.0 if takes_id else 2.0
    if span.kind == "address":
        return 4.0 if own & {"email", "mail", "url", "uri", "link", "website", "address"} else None
    if span.kind in ("date", "number"):
        return None
    if takes_id and not re.search(r"\bnames?\b", description, re.IGNORECASE):
        return None
    score = 1.5 if span.kind == "quote" else 1.0
    telling = {stem(word) for word in own - {"name", "id"}}
    if telling & {stem(word) for word in (*span.before[:2], *span.after[:1])}:
        score += 3
    if span.before and span.before[0] in {"in", "within", "near"}:
        score += 1 if own & _PLACES else -1
    if own & _SUBJECTS or own & _FREE:
        score += 0.5
    return score


def _joined(work: _Work, index: int) -> list[int]:
    """The spans listed together with this one ("A, B and C"), itself included, in order."""
    spans, low, high = work.spans, index, index
    while low > 0 and _are_joined(work.text, spans[low - 1], spans[low]):
        low -= 1
    while high + 1 < len(spans) and _are_joined(work.text, spans[high], spans[high + 1]):
        high += 1
    return list(range(low, high + 1))


def _are_joined(text: str, first: Span, second: Span) -> bool:
    return first.kind == second.kind and _JOINT.fullmatch(text[first.end : second.start].removeprefix("'s")) is not None


def _free_text(text: str, own: set[str]) -> str:
    """What a free-text argument gets: for a search the words that matter, else what follows the request's verb."""
    text = " ".join(text.split())
    if own & _QUERY:
        asked = re.sub(r"^(?:please\s+)?(?:search|look|find|google)(?:\s+(?:the\s+)?\w+)?\s+(?:for|up|about)\s+", "", text,
                       flags=re.IGNORECASE)  # fmt: skip
        return asked.rstrip("?.! ")
    match = re.match(r"(?:please\s+|can you\s+|could you\s+)*\w+\s*:?\s+(.+)", text, re.IGNORECASE)
    return match[1].rstrip("?! ") if match else text


def _plausible(sub: Schema, root: Schema, name: str, text: str, depth: int = 0) -> Any:
    """A value that fits the schema when the question gives none."""
    if "default" in sub:
        return sub["default"]
    examples = sub.get("examples")
    if isinstance(examples, list) and examples:
        return examples[0]
    listed = _listed(sub)
    if listed:
        return listed[0]
    kind = _kind(sub)
    if kind in ("integer", "number"):
        low = sub.get("minimum", sub.get("exclusiveMinimum", 0) + 1)
        return int(low) if kind == "integer" else low
    if kind == "boolean":
        return False
    if kind == "array":
        wanted = sub.get("minItems", 0)
        items = _resolved(sub.get("items") or {}, root)
        return [_plausible(items, root, name, text, depth + 1)] * min(wanted, 10) if depth < _MAX_DEPTH else []
    if kind == "object":
        if depth >= _MAX_DEPTH:
            return {}
        wanted_names = set(sub.get("required") or ())
        return {key: _plausible(_resolved(one, root), root, key, text, depth + 1)
                for key, one in _properties(sub).items() if key in wanted_names}  # fmt: skip
    if _wants_date(name, sub):
        return "2026-11-01T00:00:00Z" if sub.get("format") == "date-time" else "2026-11-01"
    telling = " ".join(word for word in words(text) if word not in STOP_WORDS)[: sub.get("maxLength", 80)]
    value = telling or "example"
    return value.ljust(int(sub.get("minLength", 0)), "x")
