"""The history window: as much of the conversation as fits, newest first in importance, oldest first in order.

The unit is the exchange: a user message and all that answered it. A window begins with a user message, keeps whole
exchanges, and is bounded by a number of stored messages and by tokens. Where tokens are short, long tool results of
older exchanges are shortened before an exchange is given up.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.domain.conversation import Message
from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolSpec
from serve_app.domain.transcript import transcript
from serve_app.domain.untrusted import within_quotation
from serve_app.errors import TooLarge
from serve_app.prompting.tokens import PRIMING_TOKENS, TokenCounter, message_tokens, shortened, tool_tokens

DEFAULT_ANSWER_TOKENS = 1_024
"""Room left for the answer where the prompt does not say how long one may be."""
SHORT_RESULT_TOKENS = 200
"""What a tool result is cut to when tokens are short."""

_CUT_NOTE = "\n… [cut: an older result, shortened to fit]"


class Window(Struct, frozen=True, kw_only=True):
    """System, history and query. ``input_tokens`` counts all of it and the tools' descriptions."""

    messages: tuple[ModelMessage, ...]
    input_tokens: int
    dropped_messages: int


class _Exchange(Struct):
    """``stored`` is how many stored messages it was made from."""

    stored: int
    messages: list[ModelMessage]


def fit(
    counter: TokenCounter,
    *,
    system: str,
    history: Sequence[Message],
    query: str,
    tools: Sequence[ToolSpec],
    history_messages: int,
    context_tokens: int,
    max_output_tokens: int | None,
) -> Window:
    """The messages of a model call: system → history → user, within the context and with room for the answer.

    ``history`` is oldest first; ``history_messages`` of it are considered at most. Raises TooLarge when the query does
    not fit even without history.
    """
    first = ModelMessage(role="system", content=system)
    last = ModelMessage(role="user", content=query)
    fixed = PRIMING_TOKENS + tool_tokens(counter, tools) + message_tokens(counter, first)
    query_tokens = message_tokens(counter, last)
    limit = context_tokens - answer_tokens(context_tokens, max_output_tokens)
    if fixed + query_tokens > limit:
        raise _too_large(query_tokens, limit - fixed, context_tokens)

    exchanges = _exchanges(history[-history_messages:] if history_messages else ())
    kept, tokens, dropped = _fit_history(counter, exchanges, limit - fixed - query_tokens)
    return Window(messages=(first, *kept, last), input_tokens=fixed + query_tokens + tokens, dropped_messages=dropped)


def answer_tokens(context_tokens: int, max_output_tokens: int | None) -> int:
    """Tokens kept free for the answer: at most a quarter of the context."""
    wanted = DEFAULT_ANSWER_TOKENS if max_output_tokens is None else max_output_tokens
    return min(wanted, context_tokens // 4)


def _exchanges(history: Sequence[Message]) -> list[_Exchange]:
    """Stored messages by exchange. Answers whose question is not among them are left out."""
    exchanges: list[_Exchange] = []
    for message in history:
        if message.role == "user":
            exchanges.append(_Exchange(stored=1, messages=transcript(message)))
        elif exchanges:
            exchanges[-1].stored += 1
            exchanges[-1].messages.extend(transcript(message))
    return exchanges


def _fit_history(counter: TokenCounter, exchanges: list[_Exchange], budget: int) -> tuple[list[ModelMessage], int, int]:
    """What is kept of the exchanges, its tokens, and how many stored messages were given up."""
    full = [[message_tokens(counter, message) for message in exchange.messages] for exchange in exchanges]
    total = sum(map(sum, full))
    if total <= budget:
        return [message for exchange in exchanges for message in exchange.messages], total, 0

    # As many exchanges as fit with all their long results cut, from the newest back.
    kept: list[tuple[ModelMessage, ModelMessage, int, int]] = []
    """Newest first: as it was, as cut, and the tokens of both."""
    spent = 0
    start = len(exchanges)
    for index in reversed(range(len(exchanges))):
        candidates = []
        for message, tokens in zip(exchanges[index].messages, full[index], strict=True):
            cut = _cut(counter, message) if tokens > SHORT_RESULT_TOKENS else message
            candidates.append((message, cut, tokens, tokens if cut is message else message_tokens(counter, cut)))
        cost = sum(candidate[3] for candidate in candidates)
        if spent + cost > budget:
            break
        spent += cost
        start = index
        kept.extend(reversed(candidates))

    # What room is left goes to the newest results first.
    shown: list[ModelMessage] = []
    for message, cut, tokens, cut_tokens in kept:
        if spent + tokens - cut_tokens <= budget:
            spent += tokens - cut_tokens
            shown.append(message)
        else:
            shown.append(cut)
    shown.reverse()
    return shown, spent, sum(exchange.stored for exchange in exchanges[:start])


def _cut(counter: TokenCounter, message: ModelMessage) -> ModelMessage:
    if message.role != "tool":
        return message
    content = within_quotation(message.content, lambda text: shortened(counter, text, SHORT_RESULT_TOKENS, _CUT_NOTE))
    if content == message.content:
        return message
    return ModelMessage(role="tool", content=content, tool_call_id=message.tool_call_id)


def _too_large(query_tokens: int, room: int, context_tokens: int) -> TooLarge:
    details = [{"tokens": query_tokens, "limit": max(room, 0), "context_tokens": context_tokens}]
    if room <= 0:
        return TooLarge(
            f"The instructions and tools alone do not fit this model's context of {context_tokens} tokens; "
            "choose a model with a larger context.",
            None,
            None,
            details,
        )
    return TooLarge(
        f"The message has {query_tokens} tokens, but only {room} fit beside the instructions, the tools and the answer "
        f"in this model's context of {context_tokens}; shorten it.",
        None,
        None,
        details,
    )
