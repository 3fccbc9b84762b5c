"""What the assistant does with a request: a title, tool calls, the results in words, or an answer without tools.

It keeps no state. Each round the wanted calls are worked out afresh from the question; those already made in this turn
are left out, and when none is left the results are put into words. A wanted call that lacks an id is preceded by the
lookup that can give it, so one question may take two rounds.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from serve_app.companions.provider.assistant.arguments import is_id_argument, schema_example
from serve_app.companions.provider.assistant.conversation import Conversation, ToolOutcome
from serve_app.companions.provider.assistant.instructions import instructions_in
from serve_app.companions.provider.assistant.judge import verdict_on
from serve_app.companions.provider.assistant.matching import THRESHOLD, Match, rank_tools, read_name, tool_vocabulary
from serve_app.companions.provider.assistant.one_sentence import outcomes_in_one_sentence
from serve_app.companions.provider.assistant.smalltalk import (
    answer_without_tools,
    ask_which,
    is_title_request,
    make_title,
)
from serve_app.companions.provider.assistant.spans import Span, find_spans
from serve_app.companions.provider.assistant.wording import noun_of, read_result, word_outcomes
from serve_app.companions.provider.assistant.words import QUESTION_WORDS, VERBS, name_words, stem
from serve_app.companions.provider.requests import ChatRequest, ToolFunction

MAX_ROUNDS: Final = 4
MAX_CALLS: Final = 8
_VERB: Final = "|".join(
    sorted({*QUESTION_WORDS, *(verb for verbs in VERBS.values() for verb in verbs), "tell", "give"})
)
_PART: Final = re.compile(
    rf"(?<=[.?!;])\s+|;\s*|,?\s+(?:and|then|also)\s+(?:also\s+|then\s+)?(?=(?:{_VERB})\b)", re.IGNORECASE
)
_FOLLOW_UP: Final = re.compile(r"^\s*(?:and|what about|how about|same for|also)\b", re.IGNORECASE)
_PRONOUN: Final = re.compile(
    r"\b(?:it|its|they|their|them|he|she|his|her|him|there|that (?:one|account))\b", re.IGNORECASE
)
_ABOUT: Final = re.compile(
    r"\b(?:(?:tell|know|information|details|something)\b.{0,20}\b(?:about|on)|who is|who's|what is|what's|look up)\s+",
    re.IGNORECASE,
)
_REFERENCE_KINDS: Final = frozenset({"name", "quote", "id", "phrase"})


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's answer: a text, or tool calls."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def reply_to(request: ChatRequest, conversation: Conversation) -> Reply:
    """Answer a request."""
    if not request.tools and is_title_request(conversation):
        return Reply(make_title(conversation))
    structured = _structured(request, conversation)
    if structured is not None:
        return Reply(structured)
    wanted_of_us = instructions_in(conversation.system)
    tools = [tool.function for tool in request.tools or () if request.tool_choice != "none"]
    if tools and wanted_of_us.ask_back and not conversation.rounds:
        unnamed = _unnamed(tools, conversation)
        if unnamed:
            return Reply(ask_which(unnamed))
    if tools and len(conversation.rounds) < MAX_ROUNDS:
        wanted = _wanted_calls(tools, request.tool_choice, conversation)
        fresh = _not_done(wanted, conversation.outcomes)
        if request.parallel_tool_calls is False:
            fresh = fresh[:1]
        if fresh:
            return Reply(calls=tuple(Call(name, _json(arguments)) for name, arguments in fresh[:MAX_CALLS]))
    if not conversation.rounds:
        return Reply(answer_without_tools(conversation, tools, wanted_of_us.decline))
    if wanted_of_us.one_sentence:
        text = outcomes_in_one_sentence(conversation.outcomes, conversation.question, wanted_of_us.ids)
    else:
        text = word_outcomes(conversation.outcomes)
    return Reply(wanted_of_us.applied_to(text))


def _structured(request: ChatRequest, conversation: Conversation) -> str | None:
    wanted = request.response_format or {}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        verdict = verdict_on(schema, conversation.system, conversation.question)
        if verdict is not None:
            return _json(verdict)
        return _json(schema_example(schema, conversation.question, everything=True))
    if wanted.get("type") == "json_object":
        return _json({"answer": answer_without_tools(conversation, [])})
    return None


def _wanted_calls(
    tools: Sequence[ToolFunction], choice: str | dict[str, Any] | None, conversation: Conversation
) -> list[tuple[str, dict[str, Any]]]:
    vocabulary = tool_vocabulary(tools)
    if isinstance(choice, dict):
        named = (choice.get("function") or {}).get("name")
        tools = [tool for tool in tools if tool.name == named]
    forced = (choice == "required" or isinstance(choice, dict)) and not conversation.rounds
    calls: list[tuple[str, dict[str, Any]]] = []
    for part in _parts(conversation.question):
        spans = _spans_of(part, vocabulary, conversation.earlier)
        match = _best_match(tools, part, spans, conversation.earlier)
        if match is not None:
            calls += _calls_for(match, tools, part, spans, conversation.outcomes)
        else:
            calls += _lookups_about(tools, part, spans)
    if forced and not calls and tools:
        spans = find_spans(conversation.question, vocabulary)
        best = next(iter(rank_tools(tools, conversation.question, spans)), None)
        tool = best.tool if best is not None else tools[0]
        calls = [(tool.name, schema_example(tool.parameters or {}, conversation.question))]
    return calls


def _best_match(
    tools: Sequence[ToolFunction], part: str, spans: Sequence[Span], earlier: Sequence[str]
) -> Match | None:
    matches = [match for match in rank_tools(tools, part, spans) if match.score >= THRESHOLD]
    if not matches and _FOLLOW_UP.match(part) and spans and earlier:
        matches = [one for one in rank_tools(tools, part, spans, scored_by=earlier[-1]) if one.score >= THRESHOLD]
    return matches[0] if matches else None


def _unnamed(tools: Sequence[ToolFunction], conversation: Conversation) -> str:
    """What a question is about without saying which one; empty where it says so, or where it does not matter."""
    vocabulary = tool_vocabulary(tools)
    for part in _parts(conversation.question):
        spans = _spans_of(part, vocabulary, conversation.earlier)
        match = _best_match(tools, part, spans, conversation.earlier)
        if match is None or not (match.tool.parameters or {}).get("properties"):
            continue
        missing = [one for one in match.filled.missing if _lookup_for(one, match.tool, tools, part, spans) is None]
        if missing or not match.filled.found:
            named = " ".join(word for one in missing[:1] for word in name_words(one) if word != "id")
            return named or noun_of(match.tool.name)
    return ""


def _parts(question: str) -> list[str]:
    """A question's parts, each of which may need a tool of its own (at most six)."""
    question = question[:4096]
    return [part for part in _PART.split(question) if part and part.strip()][:6]


def _spans_of(part: str, vocabulary: frozenset[str], earlier: Sequence[str]) -> list[Span]:
    """What a part names; a pronoun stands for what was named last."""
    spans = find_spans(part, vocabulary)
    if _PRONOUN.search(part) and not any(span.kind in _REFERENCE_KINDS for span in spans):
        for text in reversed(earlier[-6:]):
            named = [span for span in find_spans(text, vocabulary) if span.kind in _REFERENCE_KINDS]
            if named:
                return [*spans, named[-1]]
    return spans


def _calls_for(
    match: Match, tools: Sequence[ToolFunction], part: str, spans: Sequence[Span], outcomes: Sequence[ToolOutcome]
) -> list[tuple[str, dict[str, Any]]]:
    """The calls for a matched tool; first the lookup, when an id is needed and another tool can give it."""
    arguments = dict(match.filled.arguments)
    for missing in match.filled.missing:
        if not is_id_argument(missing):
            continue
        value = _from_outcomes(missing, match.tool, outcomes)
        if value is not None:
            arguments[missing] = value
            continue
        lookup = _lookup_for(missing, match.tool, tools, part, spans)
        if lookup is not None:
            return lookup
    return [(match.tool.name, arguments), *((match.tool.name, other) for other in match.filled.also)]


def _lookup_for(
    argument: str, wanting: ToolFunction, tools: Sequence[ToolFunction], part: str, spans: Sequence[Span]
) -> list[tuple[str, dict[str, Any]]] | None:
    subject = _subject(argument, wanting)
    for kind in ("find", "list", "get"):
        for tool in tools:
            read = read_name(tool.name, tool.description)
            if tool.name == wanting.name or kind not in read.kinds or not subject & read.nouns:
                continue
            found = rank_tools([tool], part, spans, scored_by=f"{part} {' '.join(subject)}")
            if found and found[0].filled.found and not found[0].filled.missing:
                return [(tool.name, found[0].filled.arguments)]
    return None


def _subject(argument: str, tool: ToolFunction) -> frozenset[str]:
    """What an id argument is the id of: `account_id` of an account, a bare `id` of the tool's own nouns."""
    own = frozenset(stem(word) for word in name_words(argument) if word != "id")
    return own or read_name(tool.name, tool.description).nouns


def _from_outcomes(argument: str, wanting: ToolFunction, outcomes: Sequence[ToolOutcome]) -> Any:
    subject = _subject(argument, wanting)
    for outcome in reversed(outcomes):
        result = read_result(outcome.result)
        rows = result.rows or ([result.facts] if result.facts else [])
        if result.error or not rows:
            continue
        if argument in rows[0]:
            return rows[0][argument]
        if "id" in rows[0] and subject & read_name(outcome.name, None).nouns:
            return rows[0]["id"]
    return None


def _lookups_about(tools: Sequence[ToolFunction], part: str, spans: Sequence[Span]) -> list[tuple[str, dict[str, Any]]]:
    """For "tell me about Contoso": ask every tool that finds things by name (at most three)."""
    about = _ABOUT.search(part)
    if about is None or not any(span.kind in ("name", "quote") and span.start == about.end() for span in spans):
        return []
    calls = []
    for tool in tools:
        read = read_name(tool.name, tool.description)
        if "find" not in read.kinds:
            continue
        found = rank_tools([tool], part, spans, scored_by=" ".join(read.nouns))
        if found and found[0].filled.found and not found[0].filled.missing:
            calls.append((tool.name, found[0].filled.arguments))
    return calls[:3]


def _not_done(
    wanted: Sequence[tuple[str, dict[str, Any]]], outcomes: Sequence[ToolOutcome]
) -> list[tuple[str, dict[str, Any]]]:
    done = {(outcome.name, _json(outcome.arguments)) for outcome in outcomes}
    fresh = []
    for name, arguments in wanted:
        key = (name, _json(arguments))
        if key not in done:
            done.add(key)
            fresh.append((name, arguments))
    return fresh


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
