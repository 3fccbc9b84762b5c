"""``POST /v1/chat/completions``: the whole conversation each time, the answers that came among it."""

from __future__ import annotations

import msgspec

from load_tests.answer import Answer
from load_tests.completion_check import CompletionCheck
from load_tests.ways.event_stream import HttpClient
from load_tests.ways.way import Listener, Question, Visitor

MAX_HISTORY = 40
"""Messages that are sent along at most; a client's window is bounded, too."""

_encode = msgspec.json.Encoder().encode


class CompletionsWay:
    """See ``Way``. ``default_model``: who is asked where a question names nobody, which this wire needs."""

    def __init__(self, visitor: Visitor, default_model: str = "demo") -> None:
        self._client = HttpClient(visitor.base_url, visitor.headers)
        self._default_model = default_model
        self._messages: list[dict[str, str]] = []

    def open(self) -> None:
        self._client.open()

    def new_conversation(self) -> None:
        self._messages.clear()

    def ask(self, question: Question, answer: Answer, listener: Listener | None = None) -> None:
        asked = {"role": "user", "content": question.text}
        body = {
            "model": question.model_id or self._default_model,
            "messages": [*self._messages[-MAX_HISTORY:], asked],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        check = CompletionCheck(answer)
        for batch, at in self._client.stream("POST", "/v1/chat/completions", _encode(body), headers).arrivals():
            for _, data in batch:
                check.hear(data, at)
            if listener is not None and not answer.ended:
                listener(answer)
        if not answer.ended:
            raise ConnectionResetError("the stream ended without [DONE]")
        if not answer.code:
            self._messages += [asked, {"role": "assistant", "content": answer.response}]

    def tend(self) -> None:
        """A request opens the connection anew where the server has closed it meanwhile."""

    def close(self) -> None:
        self._client.close()
