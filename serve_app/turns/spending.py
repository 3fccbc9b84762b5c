"""What a turn's model calls consumed where no provider has counted it: calls that broke off or were cancelled, and providers that
do not count.

Such usage is an estimate and says so. The prompt's part is what the prompt builder has counted, and what came after it by its
length, as is the text: the tokenizer takes 70 MB, which only the prompt builder has. A call that failed before it was answered
at all counts for nothing; one that was cancelled, or ran out of time, has been read by the model as far as anybody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from serve_app.domain.conversation import Message
from serve_app.domain.generation import FROM_CACHE, Generation, ModelMessage, ModelRequest, Thought
from serve_app.domain.prompts import Prompt
from serve_app.domain.turns import Query
from serve_app.domain.usage import Usage
from serve_app.errors import DeadlineExceeded, ParleyError
from serve_app.models.token_estimate import prompt_tokens, text_tokens
from serve_app.telemetry import Metrics
from serve_app.turns.answer import Answer
from serve_app.turns.offer import Offer


class Spending:
    """Of one run of a turn."""

    def __init__(self, offer: Offer, answer: Answer, metrics: Metrics) -> None:
        self._offer = offer
        self._answer = answer
        self._metrics = metrics

    async def learn_prices(self) -> None:
        """Makes sure that they are known once a call breaks off. Without them an estimate costs nothing."""
        with contextlib.suppress(ParleyError):
            await self._offer.catalog()

    def counted(self, request: ModelRequest, prompt: Prompt | None, generation: Generation) -> Generation:
        """The call with what the attempts before it consumed, and an estimate where its provider gave no counts."""
        usage = generation.usage
        if not (usage.input_tokens or usage.output_tokens or generation.provider == FROM_CACHE):
            texts = [generation.text, *(call.raw for call in generation.tool_calls)]
            usage = self._estimate(request, prompt, texts)
        usage = usage + self._answer.take_lost_usage()
        return generation if usage == generation.usage else replace(generation, usage=usage)

    def broke_off(
        self, request: ModelRequest, prompt: Prompt | None, shown: Sequence[str], error: BaseException
    ) -> None:
        """A call has ended with ``error`` after it had shown these pieces."""
        if shown or isinstance(error, asyncio.CancelledError | DeadlineExceeded):
            asked = self._offer.name_of(request.model_id) or request.model_id
            self._answer.add_lost_usage(self._estimate(request, prompt, shown), asked)

    def left_behind(self, query: Query, history: Sequence[Message], shown: str) -> None:
        """Another owner's call had shown this and was not gone on with."""
        if not shown:
            return
        if query.given is not None:
            read = query.given.messages
        else:
            earlier = [ModelMessage(role=message.role, content=message.text) for message in history]
            read = (*earlier, ModelMessage(role="user", content=query.content))
        self._answer.add_lost_usage(estimated(ModelRequest(messages=read, deadline=0.0), None, [shown]))

    def _estimate(self, request: ModelRequest, prompt: Prompt | None, pieces: Sequence[str]) -> Usage:
        usage = estimated(request, prompt, pieces)
        price = self._offer.price_of(request.model_id)
        if price is None:
            return usage
        cost = price.cost_microusd(usage)
        self._metrics.count("parley_cost_usd_total", cost / 1_000_000, model=self._offer.name_of(request.model_id))
        return replace(usage, cost_microusd=cost)


def estimated(request: ModelRequest, prompt: Prompt | None, pieces: Sequence[str]) -> Usage:
    """About what a call has consumed that has given these pieces. ``prompt``: what it began with, if that was counted."""
    known = 0 if prompt is None else prompt.input_tokens
    rest = request
    if prompt is not None and known:
        rest = replace(request, messages=request.messages[len(prompt.messages) :], tools=())
    return Usage(
        input_tokens=known + (prompt_tokens(rest) if rest.messages or not known else 0),
        output_tokens=_tokens(pieces),
        reasoning_tokens=_tokens([piece for piece in pieces if isinstance(piece, Thought)]),
        estimated=True,
    )


def _tokens(pieces: Sequence[str]) -> int:
    text = "".join(pieces)
    return max(1, text_tokens(text)) if text else 0
