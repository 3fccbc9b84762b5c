"""How each provider writes an answer and reads a request, so that one body of tests speaks to all of their adapters.

A test says what the model does (``say``, ``think``, ``call``); the wire makes the provider's events of it. What an adapter sent
is read back into the same words for all (``Asked``).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from serve_app.models.config import (
    AnthropicProviderConfig,
    AzureProviderConfig,
    GoogleProviderConfig,
    OpenAIProviderConfig,
    ProviderConfig,
)
from tests.simulators.models.wire_server import DONE, Received, WireServer, chunk, event

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Think:
    text: str


@dataclass(frozen=True)
class Call:
    call_id: str
    name: str
    arguments: Mapping[str, Any]


Doing = Say | Think | Call


@dataclass
class Asked:
    """A request in words that are the same for all providers. A turn is a role and what it holds, in order."""

    model: str
    key: str | None
    system: str
    turns: list[tuple[str, list[Any]]]
    tools: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class Wire(ABC):
    """One provider's ways."""

    kind: str
    ends_with_finish = True
    """Whether the model's last word is what tells a whole answer; else an event after it does."""

    @abstractmethod
    def config(self, server: WireServer, **fields: Any) -> ProviderConfig:
        """A provider at the simulator."""

    @abstractmethod
    def events(self, *doings: Doing, finish: Finish | None = "stop") -> list[bytes]:
        """A whole answer, one event for each doing and the end: 100 tokens in, 40 of them cached, 20 out, 5 of them thought.

        ``finish`` None leaves the end out: an answer cut off between two events.
        """

    @abstractmethod
    def whole(self, *doings: Doing) -> Any:
        """The same answer as one JSON body."""

    @abstractmethod
    def error(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""

    def error_event(self, status: int, message: str) -> bytes:
        """An error in the middle of a stream."""
        return event(json.dumps(self.error(status, message)).encode())

    @abstractmethod
    def asked(self, received: Received) -> Asked:
        """A request as the adapter sent it."""

    @abstractmethod
    def models(self, *names: str) -> dict[str, Any]:
        """The answer to a question for the models there are."""


class OpenAIWire(Wire):
    kind = "openai"
    thought = "reasoning_content"

    def config(self, server: WireServer, **fields: Any) -> ProviderConfig:
        values = {"name": "p", "kind": "openai", "base_url": server.base_url, "api_key_env": "P_KEY"}
        return OpenAIProviderConfig.model_validate(values | fields)

    def events(self, *doings: Doing, finish: Finish | None = "stop") -> list[bytes]:
        events = [event(chunk({"role": "assistant", "content": ""}))]
        calls = 0
        for doing in doings:
            if isinstance(doing, Call):
                begin = {"name": doing.name, "arguments": ""}
                first = {"index": calls, "id": doing.call_id, "type": "function", "function": begin}
                rest = {"index": calls, "function": {"arguments": json.dumps(doing.arguments)}}
                events += [event(chunk({"tool_calls": [first]})), event(chunk({"tool_calls": [rest]}))]
                calls += 1
            else:
                key = "content" if isinstance(doing, Say) else self.thought
                events.append(event(chunk({key: doing.text})))
        if finish is None:
            return events
        return [*events, event(chunk(finish=finish)), event(chunk(choices=[], usage=self._usage())), DONE]

    def whole(self, *doings: Doing) -> Any:
        text = "".join(doing.text for doing in doings if isinstance(doing, Say))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def error(self, status: int, message: str) -> dict[str, Any]:
        kind = {429: "rate_limit_error", 401: "authentication_error"}.get(status, "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def asked(self, received: Received) -> Asked:
        body = received.json
        turns: list[tuple[str, list[Any]]] = []
        for message in body["messages"]:
            if message["role"] == "system":
                continue
            if message["role"] == "tool":
                said: list[Any] = [("result", message["tool_call_id"], message["content"])]
                role = "user"
            else:
                role = message["role"]
                said = [message["content"]] if message["content"] else []
                said += [
                    ("call", one["id"], one["function"]["name"], json.loads(one["function"]["arguments"]))
                    for one in message.get("tool_calls", ())
                ]
            if turns and turns[-1][0] == role:
                turns[-1][1].extend(said)
            else:
                turns.append((role, said))
        names = {
            "max_completion_tokens": "max", "temperature": "temperature", "top_p": "top_p", "stop": "stop",
            "reasoning_effort": "effort", "response_format": "format", "tool_choice": "tool_choice",
        }  # fmt: skip
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return Asked(
            model=body["model"],
            key=received.headers.get("authorization", "").removeprefix("Bearer ") or None,
            system="\n\n".join(message["content"] for message in body["messages"] if message["role"] == "system"),
            turns=turns,
            tools={tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())},
            settings={ours: body[theirs] for theirs, ours in names.items() if theirs in body}
            | ({"format": schema} if schema else {}),
        )

    def models(self, *names: str) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }


class OpenRouterWire(OpenAIWire):
    """The same with thoughts under another name."""

    kind = "openai-reasoning"
    thought = "reasoning"


class AzureWire(OpenAIWire):
    kind = "azure"

    def config(self, server: WireServer, **fields: Any) -> ProviderConfig:
        values = {"name": "p", "kind": "azure", "endpoint": server.url, "api_key_env": "P_KEY", "api_version": "1"}
        return AzureProviderConfig.model_validate(values | fields)

    def asked(self, received: Received) -> Asked:
        asked = super().asked(received)
        asked.key = received.headers.get("api-key")
        return asked


class AnthropicWire(Wire):
    kind = "anthropic"
    ends_with_finish = False
    reasons: Mapping[str, str] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
    }
    kinds: Mapping[int, str] = {
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def config(self, server: WireServer, **fields: Any) -> ProviderConfig:
        values = {"name": "p", "kind": "anthropic", "base_url": server.url, "api_key_env": "P_KEY"}
        return AnthropicProviderConfig.model_validate(values | fields)

    def events(self, *doings: Doing, finish: Finish | None = "stop") -> list[bytes]:
        before = {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 1}
        events = [
            self._event("message_start", message={"id": "m1", "role": "assistant", "content": [], "usage": before}),
            self._event("ping"),
        ]
        for index, doing in enumerate(doings):
            start, deltas = self._block(doing)
            events.append(
                self._event("content_block_start", index=index, content_block=start)
                + b"".join(self._event("content_block_delta", index=index, delta=delta) for delta in deltas)
                + self._event("content_block_stop", index=index)
            )
        if finish is None:
            return events
        after = {"output_tokens": 20, "output_tokens_details": {"thinking_tokens": 5}}
        delta = {"stop_reason": self.reasons[finish], "stop_sequence": None}
        return [*events, self._event("message_delta", delta=delta, usage=after), self._event("message_stop")]

    def whole(self, *doings: Doing) -> Any:
        content = [{"type": "text", "text": doing.text} for doing in doings if isinstance(doing, Say)]
        usage = {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 20}
        return {"id": "m1", "type": "message", "content": content, "stop_reason": "end_turn", "usage": usage}

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": self.kinds.get(status, "api_error"), "message": message}}

    def asked(self, received: Received) -> Asked:
        body = received.json
        turns = [(turn["role"], [self._said(block) for block in turn["content"]]) for turn in body["messages"]]
        names = {"max_tokens": "max", "temperature": "temperature", "top_p": "top_p", "stop_sequences": "stop"}
        settings = {ours: body[theirs] for theirs, ours in names.items() if theirs in body}
        if body.get("tool_choice") == {"type": "any"}:
            settings["tool_choice"] = "required"
        output = body.get("output_config", {})
        if "effort" in output:
            settings["effort"] = output["effort"]
        if "format" in output:
            settings["format"] = output["format"]["schema"]
        key = received.headers.get("x-api-key") or received.headers.get("authorization", "").removeprefix("Bearer ")
        return Asked(
            model=body["model"],
            key=key or None,
            system=body.get("system", ""),
            turns=turns,
            tools={tool["name"]: tool["input_schema"] for tool in body.get("tools", ())},
            settings=settings,
        )

    def models(self, *names: str) -> dict[str, Any]:
        return {"data": [{"id": name, "type": "model"} for name in names], "has_more": False}

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = json.dumps({"type": kind} | fields, ensure_ascii=False).encode()
        return b"event: " + kind.encode() + b"\n" + event(data)

    def _block(self, doing: Doing) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
        if isinstance(doing, Say):
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": doing.text}]
        if isinstance(doing, Think):
            delta = {"type": "thinking_delta", "thinking": doing.text}
            return {"type": "thinking", "thinking": "", "signature": ""}, [
                delta,
                {"type": "signature_delta", "signature": "c2ln"},
            ]
        raw = json.dumps(doing.arguments)
        halves = (raw[:3], raw[3:])
        start = {"type": "tool_use", "id": doing.call_id, "name": doing.name, "input": {}}
        return start, [{"type": "input_json_delta", "partial_json": half} for half in ("", *halves)]

    def _said(self, block: Mapping[str, Any]) -> Any:
        if block["type"] == "tool_use":
            return ("call", block["id"], block["name"], block["input"])
        if block["type"] == "tool_result":
            return ("result", block["tool_use_id"], block["content"])
        return block["text"]


class GoogleWire(Wire):
    kind = "google"
    reasons: Mapping[str, str] = {
        "stop": "STOP",
        "length": "MAX_TOKENS",
        "tool_calls": "STOP",
        "content_filter": "SAFETY",
    }
    statuses: Mapping[int, str] = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}

    def config(self, server: WireServer, **fields: Any) -> ProviderConfig:
        values = {"name": "p", "kind": "google", "base_url": server.url, "api_key_env": "P_KEY"}
        return GoogleProviderConfig.model_validate(values | fields)

    def events(self, *doings: Doing, finish: Finish | None = "stop") -> list[bytes]:
        events = [self._chunk([self._part(doing)]) for doing in doings]
        if finish is None:
            return events
        return [*events, self._chunk([{"text": ""}], finishReason=self.reasons[finish])]

    def whole(self, *doings: Doing) -> Any:
        parts = [self._part(doing) for doing in doings]
        return [self._body(parts, finishReason="STOP")]

    def error(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": self.statuses.get(status, "INTERNAL")}}

    def asked(self, received: Received) -> Asked:
        body = received.json
        roles = {"user": "user", "model": "assistant"}
        names = {"maxOutputTokens": "max", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
        generation = body.get("generationConfig", {})
        settings = {ours: generation[theirs] for theirs, ours in names.items() if theirs in generation}
        if "thinkingConfig" in generation:
            settings["effort"] = generation["thinkingConfig"]["thinkingLevel"]
        if body.get("toolConfig", {}).get("functionCallingConfig", {}).get("mode") == "ANY":
            settings["tool_choice"] = "required"
        if "responseJsonSchema" in generation:
            settings["format"] = generation["responseJsonSchema"]
        declared = [one for tool in body.get("tools", ()) for one in tool["functionDeclarations"]]
        return Asked(
            model=received.path.partition("/models/")[2].partition(":")[0],
            key=received.headers.get("x-goog-api-key"),
            system="\n\n".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ())),
            turns=[(roles[turn["role"]], [self._said(part) for part in turn["parts"]]) for turn in body["contents"]],
            tools={one["name"]: one.get("parametersJsonSchema", {"type": "object"}) for one in declared},
            settings=settings,
        )

    def models(self, *names: str) -> dict[str, Any]:
        return {
            "models": [{"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]} for name in names]
            + [{"name": "models/an-embedding", "supportedGenerationMethods": ["embedContent"]}]
        }

    def _chunk(self, parts: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        return event(json.dumps(self._body(parts, **more), ensure_ascii=False).encode())

    def _body(self, parts: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        usage = {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 15,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 120,
        }
        candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0} | more
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m-001", "responseId": "r1"}

    def _part(self, doing: Doing) -> dict[str, Any]:
        if isinstance(doing, Say):
            return {"text": doing.text}
        if isinstance(doing, Think):
            return {"text": doing.text, "thought": True}
        call = {"id": doing.call_id, "name": doing.name, "args": dict(doing.arguments)}
        return {"functionCall": call, "thoughtSignature": "c2ln"}

    def _said(self, part: Mapping[str, Any]) -> Any:
        if "functionCall" in part:
            call = part["functionCall"]
            return ("call", call["id"], call["name"], call["args"])
        if "functionResponse" in part:
            result = part["functionResponse"]
            return ("result", result["id"], result["response"]["output"])
        return part["text"]


WIRES: tuple[Wire, ...] = (OpenAIWire(), OpenRouterWire(), AzureWire(), AnthropicWire(), GoogleWire())
