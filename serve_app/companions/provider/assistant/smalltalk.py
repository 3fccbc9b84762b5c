"""Answers without tools, always honest about being simulated, and titles for conversations."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

from serve_app.companions.provider.assistant.conversation import Conversation
from serve_app.companions.provider.assistant.spans import find_spans
from serve_app.companions.provider.assistant.words import STOP_WORDS, VERBS, word_set, words
from serve_app.companions.provider.requests import ToolFunction

_TITLE: Final = re.compile(
    r"\b(?:write|give|make|create|generate|reply|answer|respond|produce|suggest|propose|summari[sz]e|invent|need|find)\b"
    r"[^.]{0,80}\btitle\b",
    re.IGNORECASE | re.DOTALL,
)
_TRANSCRIPT: Final = re.compile(r"^\s*(?:user|human|question)\s*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_GREETING: Final = re.compile(r"^\W*(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings)\b", re.IGNORECASE)
_THANKS: Final = re.compile(r"\b(?:thanks|thank you|cheers)\b", re.IGNORECASE)
_MY_NAME: Final = re.compile(
    r"\b(?:my name is|i am called|call me|i'm|i am)\s+([^\W\d_][\w'-]*(?:\s+[A-Z][\w'-]*)?)", re.IGNORECASE
)
_WHAT_NAME: Final = re.compile(r"\b(?:what(?:'s| is) my name|who am i|remember my name|know my name)\b", re.IGNORECASE)
_WHAT_ASKED: Final = re.compile(
    r"\bwhat (?:did|have|was|were) (?:i|my)\b.{0,40}\b(?:ask|asked|say|said|question|message)\b", re.IGNORECASE
)
_WHO: Final = re.compile(
    r"\b(?:who are you|what are you|what can you do|help me|how do you work)\b|^\W*help\W*$", re.IGNORECASE
)
_DAY: Final = re.compile(
    r"\b(?:what(?:'s| is)?(?: the)? (?:date|day)|today's date|which day|what day)\b", re.IGNORECASE
)
_ISO_DAY: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_COUNT: Final = re.compile(r"\bcount (?:up )?(?:from 1 )?to (\d{1,4})\b", re.IGNORECASE)
_LONG: Final = re.compile(r"\b(?:story|essay|long|detail|poem|article|paragraphs)\b", re.IGNORECASE)
_MAX_COUNT: Final = 1000
_TITLE_WORDS: Final = 6
_MAX_QUOTED_CHARS: Final = 300
_NOT_A_NAME: Final = word_set("a an the not so sure happy sorry glad here looking trying interested using new fine")

_OPENINGS: Final = (
    "Thank you for the question about {topic}.",
    "You ask about {topic}.",
    "{Topic}: a good thing to talk about.",
)
_EXPLANATIONS: Final = (
    "I am a **simulated model**: I answer from the words of your question and have no knowledge of my own.",
    "Please bear in mind that a **simulated model** answers here; it matches words and knows nothing itself.",
    "There is no real language model behind this answer, only a **simulated** one for trying the system out.",
)
_LONG_LINES: Final = (
    "This paragraph is about {topic}, and it is only here to show how a longer answer streams in piece by piece.",
    "A real model would now go into {topic}; this simulated one fills the space at the same pace instead.",
    "While {topic} goes on, you can try to stop the answer, reload the page, or open the conversation in another tab.",
    "Nothing that is said here about {topic} is true or false, because nothing is really said about it.",
)


def is_title_request(conversation: Conversation) -> bool:
    """Whether the request wants a title for a conversation."""
    return bool(_TITLE.search(conversation.system or conversation.question))


def make_title(conversation: Conversation) -> str:
    """A title of at most six words, made of the question's names and key words."""
    asked = next(iter([*conversation.earlier, conversation.question]))
    quoted = _TRANSCRIPT.search(asked)
    asked = quoted[1] if quoted else asked
    names = [span.text for span in find_spans(asked) if span.kind in ("name", "id", "quote")]
    named = {word for name in names for word in words(name)}
    verbs = {verb for kind in VERBS.values() for verb in kind}
    keys = [word for word in words(asked) if word not in STOP_WORDS | verbs | named and not word.isdigit()]
    title = " ".join(" ".join(dict.fromkeys([*names, *keys])).split()[:_TITLE_WORDS])
    return (title[:1].upper() + title[1:])[:80] or "New conversation"


def answer_without_tools(conversation: Conversation, tools: Sequence[ToolFunction], declines: bool = False) -> str:
    """A helpful, deterministic answer to a question that no tool fits; ``declines``: to small talk alone."""
    question, earlier = conversation.question, conversation.earlier
    counting = _COUNT.search(question)
    if counting:
        return "\n".join(f"{number}." for number in range(1, min(int(counting[1]), _MAX_COUNT) + 1))
    if _WHAT_ASKED.search(question):
        return _recall_question(question, earlier)
    if _WHAT_NAME.search(question):
        name = next((found for text in reversed(earlier) if (found := _given_name(text))), None)
        return f"You told me that your name is **{name}**." if name else "You have not told me your name yet."
    name = _given_name(question)
    if name:
        return f"Nice to meet you, **{name}**. I will remember your name in this conversation. {_offer(tools)}"
    if _DAY.search(question):
        day = _ISO_DAY.search(conversation.system)
        return f"Today is **{day[0]}**." if day else "I have not been told today's date."
    if _WHO.search(question):
        return f"{_pick(_EXPLANATIONS, 'who')} {_offer(tools)}"
    if _GREETING.search(question) and len(words(question)) <= 6:
        known = next((found for text in reversed(earlier) if (found := _given_name(text))), None)
        return f"Hello{f', {known}' if known else ''}! I am a simulated model. {_offer(tools)}"
    if _THANKS.search(question) and len(words(question)) <= 8:
        return "You are welcome. Ask me anything else you would like to try."
    return decline() if declines else _generic(question, tools)


def decline() -> str:
    """What is said to a question that is none about the company's data, by a prompt that wants it declined."""
    return (
        "I am sorry, I cannot help with that: I only answer questions about the company's data that I have access to."
    )


def ask_which(noun: str) -> str:
    """A question back, where it was not said what is meant."""
    return f"Which {noun} do you mean? Please give me a name or an id."


def _generic(question: str, tools: Sequence[ToolFunction]) -> str:
    topic = _topic(question)
    if _LONG.search(question):
        lines = [line.format(topic=f"*{topic}*") for line in _LONG_LINES]
        return "\n\n".join([_pick(_EXPLANATIONS, question), *lines, *lines, "That is all about it."])
    opening = _pick(_OPENINGS, question).format(topic=f"*{topic}*", Topic=f"*{topic[:1].upper()}{topic[1:]}*")
    return f"{opening} {_pick(_EXPLANATIONS, question)} {_offer(tools)}"


def _recall_question(question: str, earlier: Sequence[str]) -> str:
    if not earlier:
        return "This is your first question in this conversation."
    first = re.search(r"\bfirst\b", question, re.IGNORECASE)
    text = " ".join((earlier[0] if first else earlier[-1]).split())[:_MAX_QUOTED_CHARS]
    return f"{'Your first question was' if first else 'Before this you said'}: “{text}”"


def _given_name(text: str) -> str | None:
    for match in _MY_NAME.finditer(text):
        name = " ".join(match[1].split())
        explicit = match[0].lower().startswith(("my name", "call me", "i am called"))
        if name.lower().split()[0] not in _NOT_A_NAME and (explicit or name[:1].isupper()):
            return name[:1].upper() + name[1:]
    return None


def _offer(tools: Sequence[ToolFunction]) -> str:
    if not tools:
        return "Configure a provider to talk to a real one."
    names = ", ".join(f"`{tool.name}`" for tool in tools[:8])
    more = f" and {len(tools) - 8} more" if len(tools) > 8 else ""
    hint = _hint({tool.name for tool in tools})
    return f"I can use these tools for you: {names}{more}.{hint}"


def _hint(names: set[str]) -> str:
    if any(name.endswith("list_opportunities") for name in names):
        return " Try “Which opportunities does Contoso have?”"
    if any(name.endswith("get_leave_balance") for name in names):
        return " Try “How many vacation days does Maria Keller have left?”"
    return ""


def _topic(question: str) -> str:
    verbs = {verb for kind in VERBS.values() for verb in kind}
    kept = [raw for raw in re.findall(r"[^\W_]+", question) if raw.lower() not in STOP_WORDS | verbs]
    return " ".join(kept[:5]) or "this"


def _pick(options: tuple[str, ...], text: str) -> str:
    """Always the same option for the same text, in every process."""
    return options[zlib.crc32(text.encode()) % len(options)]
