"""A client of the wire protocol, written from the protocol's own text and using nothing of the program.

Everything it receives is held against the protocol as it comes: the fields of every frame, event and chunk, the order of
events, their numbers, replays being the same bytes, the end of a turn. What does not fit raises Violation, wherever a test
happens to be.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

WAIT_S = 60.0
"""Longest wait for one frame or chunk; far longer than any takes, also on a busy machine."""

Json = dict[str, Any]

TERMINAL = ("chat_response", "turn.failed", "turn.cancelled")
CODES = (
    "invalid_input", "unauthenticated", "not_permitted", "not_found", "conflict", "gone", "too_large", "quota_exceeded",
    "overloaded", "deadline_exceeded", "upstream_failed", "internal",
)  # fmt: skip
STATUS_CODES = {
    400: "invalid_input", 422: "invalid_input", 401: "unauthenticated", 403: "not_permitted", 404: "not_found",
    409: "conflict", 410: "gone", 413: "too_large", 429: "quota_exceeded", 503: "overloaded", 504: "deadline_exceeded",
    502: "upstream_failed", 500: "internal",
}  # fmt: skip

_NONE: tuple[type, ...] = (type(None),)
_STR, _INT, _BOOL, _DICT, _LIST = (str,), (int,), (bool,), (dict,), (list,)
_ANY: tuple[type, ...] = (object,)
_TURN = {"turn_id": _STR, "seq": _INT}
SERVER_FRAMES: dict[str, dict[str, tuple[type, ...]]] = {
    "connection.ack": {"connection_id": _STR, "protocol": _INT},
    "session.created": {
        "session_id": _STR, "user_id": _STR, "roles": _LIST, "tools": _LIST, "active_turn": _DICT + _NONE,
    },
    "turn.started": {**_TURN, "message_id": _STR, "client_turn_id": _STR + _NONE},
    "text.delta": {**_TURN, "delta": _STR},
    "tool.approval": {
        **_TURN, "approval_id": _STR, "tool_call_id": _STR, "name": _STR, "arguments": _DICT, "reason": _STR,
    },
    "tool.started": {**_TURN, "tool_call_id": _STR, "name": _STR, "arguments": _DICT},
    "tool.finished": {
        **_TURN, "tool_call_id": _STR, "name": _STR, "ok": _BOOL, "result": _ANY, "duration_ms": _INT,
    },
    "step.reset": {**_TURN, "step": _INT},
    "chat_response": {
        **_TURN, "message_id": _STR, "response": _STR, "tool_feedback": _LIST, "usage": _DICT, "finish_reason": _STR,
    },
    "turn.failed": {**_TURN, "code": _STR, "message": _STR, "retryable": _BOOL, "response": _STR},
    "turn.cancelled": {**_TURN, "response": _STR},
    "title": {"session_id": _STR, "title": _STR},
    "error": {"code": _STR, "message": _STR, "retryable": _BOOL, "turn_id": _STR + _NONE},
    "reconnect": {"after_ms": _INT, "reason": _STR},
    "pong": {},
}  # fmt: skip


class Violation(AssertionError):
    """Something that the protocol does not allow."""


def _demand(condition: object, what: str) -> None:
    if not condition:
        raise Violation(what)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool) and bool not in kinds and object not in kinds:
        return False  # Python's bool is an int; JSON's is not
    return isinstance(value, kinds)


def check_frame(text: str) -> Json:
    """One frame or event: JSON, known, with exactly its fields, each of its type."""
    frame = json.loads(text)
    _demand(isinstance(frame, dict) and isinstance(frame.get("type"), str), f"not a frame: {text[:200]}")
    fields = SERVER_FRAMES.get(frame["type"])
    _demand(fields is not None, f"unknown type: {text[:200]}")
    assert fields is not None
    _demand(frame.keys() - {"type"} == fields.keys(), f"fields of {frame['type']}: {sorted(frame)}")
    for name, kinds in fields.items():
        _demand(_fits(frame[name], kinds), f"{frame['type']}.{name} is {frame[name]!r}")
    if frame["type"] in {"error", "turn.failed"}:
        _demand(frame["code"] in CODES, f"unknown code: {text[:200]}")
        _demand(len(frame["message"]) > 10, f"not a sentence: {text[:200]}")
    return dict(frame)


@dataclass
class Turn:
    """The whole log of one turn, held against every sentence about turns when :meth:`check` is called."""

    turn_id: str
    raw: dict[int, str] = field(default_factory=dict)

    def add(self, text: str) -> Json:
        """One more event; a replayed one must be the same bytes."""
        event = check_frame(text)
        _demand(event.get("turn_id") == self.turn_id, f"an event of {event.get('turn_id')} among {self.turn_id}'s")
        seq = event["seq"]
        _demand(seq >= 1, f"seq {seq}")
        known = self.raw.setdefault(seq, text)
        _demand(known == text, f"event {seq} came as {known[:200]} and as {text[:200]}")
        return event

    @property
    def events(self) -> list[Json]:
        return [json.loads(self.raw[seq]) for seq in sorted(self.raw)]

    @property
    def ended(self) -> bool:
        return any(event["type"] in TERMINAL for event in self.events)

    @property
    def last(self) -> Json:
        return self.events[-1]

    @property
    def tools(self) -> list[str]:
        """Names of the tools that were called, in order."""
        return [event["name"] for event in self.events if event["type"] == "tool.started"]

    @property
    def results(self) -> list[Json]:
        return [event for event in self.events if event["type"] == "tool.finished"]

    @property
    def shown_text(self) -> str:
        """The deltas since the last reset of each step, joined. A step ends with the results of its tools."""
        steps: list[list[str]] = [[]]
        running: set[str] = set()
        for event in self.events:
            match event["type"]:
                case "text.delta":
                    steps[-1].append(event["delta"])
                case "tool.started":
                    running.add(event["tool_call_id"])
                case "tool.finished":
                    running.discard(event["tool_call_id"])
                    if not running:
                        steps.append([])
                case "step.reset":
                    steps[-1].clear()
        return "".join(piece for step in steps for piece in step)

    def check(self) -> Turn:
        """Everything that can be said of an ended turn from its events alone."""
        events = self.events
        _demand(events, "no events")
        numbers = [event["seq"] for event in events]
        _demand(numbers == list(range(1, len(events) + 1)), f"seq is not contiguous from 1: {numbers}")
        _demand(events[0]["type"] == "turn.started", f"first event: {events[0]}")
        _demand([e for e in events if e["type"] == "turn.started"] == events[:1], "more than one turn.started")
        _demand([e for e in events if e["type"] in TERMINAL] == events[-1:], "not exactly one terminal event, last")
        self._check_tools(events)
        end = events[-1]
        _demand(end["response"] == self.shown_text, f"response {end['response']!r} is not the text {self.shown_text!r}")
        if end["type"] == "chat_response":
            self._check_answer(events[0], end)
        return self

    def _check_tools(self, events: Sequence[Json]) -> None:
        started: dict[str, Json] = {}
        asked: dict[str, Json] = {}
        finished: set[str] = set()
        for event in events:
            if event["type"] == "tool.approval":
                _demand(event["tool_call_id"] not in {*asked, *started}, f"asked twice, or too late: {event}")
                asked[event["tool_call_id"]] = event
            if event["type"] == "tool.started":
                _demand(event["tool_call_id"] not in started, f"started twice: {event}")
                started[event["tool_call_id"]] = event
            if event["type"] == "tool.finished":
                begun = started.get(event["tool_call_id"])
                if begun is None and not event["ok"]:
                    begun = asked.get(event["tool_call_id"])  # declined: it never started
                    started.update({event["tool_call_id"]: begun} if begun is not None else {})
                _demand(begun is not None and begun["name"] == event["name"], f"finished without a start: {event}")
                _demand(event["tool_call_id"] not in finished, f"finished twice: {event}")
                _demand(event["duration_ms"] >= 0, f"duration: {event}")
                finished.add(event["tool_call_id"])
        if events[-1]["type"] == "chat_response":
            _demand(finished == started.keys(), f"never finished: {started.keys() - finished}")

    def _check_answer(self, start: Json, end: Json) -> None:
        _demand(end["message_id"] == start["message_id"], "the answer's message is not the one announced")
        _demand(end["usage"].keys() == {"input_tokens", "output_tokens"}, f"usage: {end['usage']}")
        _demand(all(_fits(count, _INT) and count >= 0 for count in end["usage"].values()), f"usage: {end['usage']}")
        _demand(end["usage"]["output_tokens"] > 0, f"usage: {end['usage']}")
        calls = {"tool.approval", "tool.started"}
        arguments = {e["tool_call_id"]: e["arguments"] for e in self.events if e["type"] in calls}
        told = {
            e["tool_call_id"]: {
                "tool_call_id": e["tool_call_id"], "name": e["name"], "arguments": arguments[e["tool_call_id"]],
                "ok": e["ok"], "result": e["result"],
            }
            for e in self.results
        }  # fmt: skip
        _demand(
            {each["tool_call_id"]: each for each in end["tool_feedback"]} == told, "tool_feedback is not the results"
        )
        _demand(len(end["tool_feedback"]) == len(told), "tool_feedback repeats a call")


def development_identity(user: str, roles: str = "sales", tenant: str | None = None) -> dict[str, str]:
    return {"X-Dev-User": user, "X-Dev-Roles": roles} | ({"X-Dev-Tenant": tenant} if tenant else {})


class ChatSocket:
    """One connection to ``/ws/chat``. Use :meth:`open`."""

    def __init__(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        self._connection = connection
        self._frames = 0
        self._next: dict[str, int] = {}
        self._resumed: set[str] = set()
        self.ack: Json = {}
        self.session: Json = {}
        self.turns: dict[str, Turn] = {}
        self.titles: list[str] = []
        self.errors: list[Json] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        identity: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        by_query: bool = False,
    ) -> AsyncIterator[ChatSocket]:
        """Connects with what says who one is in headers or, as browsers must, in the query; reads the first frame."""
        address = f"{url}?{urlencode(identity)}" if by_query else url
        given = dict(headers or {}) | ({} if by_query else dict(identity))
        async with websockets.asyncio.client.connect(
            address, additional_headers=given, open_timeout=WAIT_S, max_size=2**24, proxy=None
        ) as connection:
            socket = cls(connection)
            socket.ack = await socket.frame()
            _demand(
                socket.ack["type"] == "connection.ack" and socket.ack["protocol"] == 1, f"first frame: {socket.ack}"
            )
            yield socket

    # -- what a client says

    async def send(self, frame: Json | str | bytes) -> None:
        await self._connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def start_session(self, session_id: str | None = None, **fields: Any) -> Json:
        """``session.update`` and the ``session.created`` that answers it."""
        await self.send({"type": "session.update"} | ({"session_id": session_id} if session_id else {}) | fields)
        self.session = await self.until("session.created")
        if session_id is not None:
            _demand(self.session["session_id"] == session_id, f"another session: {self.session}")
        active = self.session["active_turn"]
        _demand(active is None or active.keys() == {"turn_id", "seq"}, f"active_turn: {active}")
        return self.session

    async def begin(self, content: str, **fields: Any) -> Turn:
        """Sends a query and returns with its ``turn.started``."""
        await self.send({"type": "query", "content": content} | fields)
        started = await self.until("turn.started")
        _demand(started["client_turn_id"] == fields.get("client_turn_id"), f"client_turn_id: {started}")
        return self.turns[started["turn_id"]]

    async def ask(self, content: str, **fields: Any) -> Turn:
        """A whole turn, checked."""
        turn = await self.begin(content, **fields)
        return await self.finish(turn)

    async def finish(self, turn: Turn) -> Turn:
        """Reads until the turn has ended, and checks it."""
        while not turn.ended:
            await self.frame()
        return turn.check()

    async def resume(self, turn_id: str, after_seq: int = 0) -> Turn:
        """Asks for the events after ``after_seq``; they arrive with the frames that follow."""
        turn = self.turns.setdefault(turn_id, Turn(turn_id))
        self._next[turn_id] = after_seq + 1
        self._resumed.add(turn_id)
        await self.send({"type": "resume", "turn_id": turn_id, "after_seq": after_seq})
        return turn

    async def refused(self, frame: Json | str | bytes) -> Json:
        """Sends what the server must answer with an ``error``, and returns that."""
        await self.send(frame)
        return await self.until("error")

    # -- what the server says

    async def frame(self, timeout_s: float = WAIT_S) -> Json:
        """The next frame, checked against its type and against what came before."""
        async with asyncio.timeout(timeout_s):
            text = await self._connection.recv()
        _demand(isinstance(text, str), "not a text frame")
        assert isinstance(text, str)
        frame = check_frame(text)
        self._frames += 1
        _demand((frame["type"] == "connection.ack") == (self._frames == 1), f"frame {self._frames} is {frame['type']}")
        match frame["type"]:
            case "title":
                named = {self.session.get("session_id"), *(turn_id.rpartition(".")[0] for turn_id in self._resumed)}
                _demand(frame["session_id"] in named, f"another conversation's title: {frame}")
                self.titles.append(frame["title"])
            case "error":
                self.errors.append(frame)
        if "seq" in frame:
            self._take(frame, text)
        return frame

    async def until(self, kind: str) -> Json:
        """Reads up to the next frame of this type. An ``error`` that nobody asked for is a failure."""
        while True:
            frame = await self.frame()
            if frame["type"] == kind:
                return frame
            _demand(frame["type"] != "error", f"waiting for {kind}: {frame}")

    async def title(self) -> str:
        while not self.titles:
            await self.frame()
        return self.titles[0]

    async def closed(self) -> int:
        """The code the server closes with; frames before it are read and checked."""
        try:
            while True:
                await self.frame()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd is not None else 1006

    async def drop(self) -> None:
        """Goes away without a word, as a phone in a tunnel does."""
        self._connection.transport.abort()

    def _take(self, frame: Json, text: str) -> None:
        turn_id, seq = frame["turn_id"], frame["seq"]
        if frame["type"] == "turn.started" and turn_id not in self._next:
            self._next[turn_id] = 1
        if frame["type"] == "turn.started" and seq == 1 and self._next.get(turn_id, 1) != 1:
            self._next[turn_id] = 1  # the same input again: its events are replayed from the first
        expected = self._next.get(turn_id)
        _demand(expected is not None, f"an event of a turn that was not asked for: {text[:200]}")
        _demand(seq == expected, f"event {seq} came instead of {expected}")
        self._next[turn_id] = seq + 1
        self.turns.setdefault(turn_id, Turn(turn_id)).add(text)


# -- server-sent events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SseEvent:
    id: str | None
    data: str


async def sse_events(response: httpx2.Response) -> AsyncGenerator[SseEvent]:
    """The events of a stream as they come; comments are left out."""
    buffer = ""
    async for piece in response.aiter_text():
        buffer += piece
        *blocks, buffer = buffer.split("\n\n")
        for block in blocks:
            event = _sse_event(block)
            if event is not None:
                yield event
    _demand(buffer == "", f"the stream ends in the middle of an event: {buffer[:200]!r}")


def _sse_event(block: str) -> SseEvent | None:
    event_id, data = None, []
    for line in block.split("\n"):
        if line.startswith(":"):
            continue
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        _demand(colon and name in {"id", "data"}, f"unknown line in a stream: {line[:200]!r}")
        if name == "id":
            _demand(event_id is None, f"two ids in one event: {block[:200]!r}")
            event_id = value
        else:
            data.append(value)
    if not data:
        _demand(event_id is None, f"an id without data: {block[:200]!r}")
        return None
    return SseEvent(event_id, "\n".join(data))


UI_HEADERS = {
    "cache-control": "no-cache",
    "x-vercel-ai-ui-message-stream": "v1",
    "x-accel-buffering": "no",
}
_UI_CHUNKS: dict[str, tuple[dict[str, tuple[type, ...]], dict[str, tuple[type, ...]]]] = {
    # type: (required fields, optional fields)
    "start": ({}, {"messageId": _STR, "messageMetadata": _ANY}),
    "start-step": ({}, {}),
    "text-start": ({"id": _STR}, {}),
    "text-delta": ({"id": _STR, "delta": _STR}, {}),
    "text-end": ({"id": _STR}, {}),
    "tool-input-start": ({"toolCallId": _STR, "toolName": _STR}, {"dynamic": _BOOL}),
    "tool-input-available": ({"toolCallId": _STR, "toolName": _STR, "input": _ANY}, {"dynamic": _BOOL}),
    "tool-output-available": ({"toolCallId": _STR, "output": _ANY}, {"dynamic": _BOOL}),
    "tool-output-error": ({"toolCallId": _STR, "errorText": _STR}, {"dynamic": _BOOL}),
    "finish-step": ({}, {}),
    "finish": ({}, {"finishReason": _STR}),
    "abort": ({}, {"reason": _STR}),
    "error": ({"errorText": _STR}, {}),
}
_FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls", "error", "other"}


@dataclass
class UiStream:
    """A response of ``/api/chat``: the AI SDK's chunks, each checked as its client would, and what they add up to."""

    ids: list[str] = field(default_factory=list)
    chunks: list[Json] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    calls: dict[str, Json] = field(default_factory=dict)
    done: bool = False
    _open_text: str | None = None
    _in_step: bool = False

    @property
    def text(self) -> str:
        return "".join(text for part, text in self.texts.items() if part not in self.void)

    @property
    def turn_id(self) -> str:
        return self.ids[0].rpartition(":")[0]

    @property
    def message_id(self) -> str:
        return str(self.chunks[0]["messageId"])

    @property
    def tools(self) -> list[str]:
        return [call["toolName"] for call in self.calls.values()]

    @property
    def finish_reason(self) -> str:
        return str(self.chunks[-1].get("finishReason"))

    @property
    def title(self) -> str | None:
        return next((chunk["data"]["title"] for chunk in self.chunks if chunk["type"] == "data-title"), None)

    def kinds(self) -> list[str]:
        return [chunk["type"] for chunk in self.chunks]

    def add(self, event: SseEvent) -> None:
        _demand(not self.done, f"after [DONE]: {event}")
        if event.data == "[DONE]":
            self.done = True
            return
        self._take_id(event.id)
        chunk = json.loads(event.data)
        _demand(not self.chunks or self.chunks[-1]["type"] != "finish", f"after finish: {chunk}")
        _demand((chunk["type"] == "start") == (not self.chunks), f"chunk {len(self.chunks) + 1} is {chunk['type']}")
        self._check_fields(chunk)
        self._check_place(chunk)
        self.chunks.append(chunk)

    def _take_id(self, event_id: str | None) -> None:
        if event_id is None:
            return
        turn_id, _, seq = event_id.rpartition(":")
        _demand(turn_id and seq.isdigit(), f"id is not turn_id:seq: {event_id}")
        if self.ids:
            before, _, last = self.ids[-1].rpartition(":")
            _demand(before == turn_id, f"two turns in one stream: {before} and {turn_id}")
            _demand(int(seq) > int(last), f"id {seq} after {last}")
        self.ids.append(event_id)

    @staticmethod
    def _check_fields(chunk: Json) -> None:
        kind = chunk["type"]
        if kind.startswith("data-"):
            _demand("data" in chunk and chunk.keys() <= {"type", "data", "id", "transient"}, f"data part: {chunk}")
            return
        _demand(kind in _UI_CHUNKS, f"a chunk no client knows: {chunk}")
        required, optional = _UI_CHUNKS[kind]
        given = chunk.keys() - {"type"}
        _demand(required.keys() <= given <= required.keys() | optional.keys(), f"fields: {chunk}")
        for name in given:
            _demand(_fits(chunk[name], (required | optional)[name]), f"{kind}.{name} is {chunk[name]!r}")
        _demand(kind != "finish" or chunk.get("finishReason") in _FINISH_REASONS, f"finishReason: {chunk}")

    def _check_place(self, chunk: Json) -> None:
        kind = chunk["type"]
        if kind.startswith(("text-", "tool-")):
            _demand(self._in_step, f"outside of a step: {chunk}")
        match kind:
            case "start-step":
                _demand(not self._in_step, "a step within a step")
                self._in_step = True
            case "finish-step":
                _demand(self._in_step and self._open_text is None, "a step ended with a text open, or none was")
                _demand(
                    all("ended" in call for call in self.calls.values()), f"a step ended with a call open: {self.calls}"
                )
                self._in_step = False
            case "text-start":
                _demand(self._open_text is None and chunk["id"] not in self.texts, f"text part: {chunk}")
                self._open_text = chunk["id"]
                self.texts[chunk["id"]] = ""
            case "text-delta":
                _demand(chunk["id"] == self._open_text, f"a delta without its start: {chunk}")
                self.texts[chunk["id"]] += chunk["delta"]
            case "text-end":
                _demand(chunk["id"] == self._open_text, f"an end without its start: {chunk}")
                self._open_text = None
            case "tool-input-start":
                _demand(chunk["toolCallId"] not in self.calls, f"started twice: {chunk}")
                self.calls[chunk["toolCallId"]] = {"toolName": chunk["toolName"]}
            case "tool-input-available":
                call = self.calls.get(chunk["toolCallId"], {})
                _demand(call.get("toolName") == chunk["toolName"] and "input" not in call, f"input: {chunk}")
                call["input"] = chunk["input"]
            case "tool-output-available" | "tool-output-error":
                call = self.calls.get(chunk["toolCallId"], {})
                _demand("input" in call and "ended" not in call, f"output: {chunk}")
                call["ended"] = True
                call["ok"] = kind == "tool-output-available"
                call["output"] = chunk.get("output", chunk.get("errorText"))
            case "data-step-reset":
                self.void.update(chunk["data"]["textIds"])
            case "finish":
                _demand(not self._in_step and self._open_text is None, "finished with a step open")

    def check(self) -> UiStream:
        """What can be said of a whole stream."""
        _demand(self.done, "the stream ended without [DONE]")
        _demand(self.chunks and self.chunks[-1]["type"] == "finish", f"last chunk: {self.chunks[-1:]}")
        _demand(self.kinds().count("data-title") <= 1, "more than one title")
        _demand(self.ids, "no ids")
        return self

    def check_against(self, turn: Turn) -> UiStream:
        """The same turn, seen the other way, says the same."""
        self.check()
        end = turn.last
        _demand(self.turn_id == turn.turn_id, f"{self.turn_id} is not {turn.turn_id}")
        _demand(self.ids[-1] == f"{turn.turn_id}:{end['seq']}", f"last id {self.ids[-1]}, last event {end['seq']}")
        _demand(self.text == end["response"], f"text {self.text!r}, response {end['response']!r}")
        _demand(self.message_id == turn.events[0]["message_id"], "messageId")
        for result in turn.results:
            call = self.calls.get(result["tool_call_id"])
            _demand(call is not None and call["toolName"] == result["name"], f"a call is missing: {result}")
            assert call is not None
            _demand(call["ok"] == result["ok"], f"outcome of {result}")
            if result["ok"]:
                _demand(call["output"] == result["result"], f"output of {result}")
        return self


# -- HTTP -------------------------------------------------------------------------------------------------------------


class Api:
    """The HTTP API as one user. ``http`` is the plain client; ``identity`` are the headers that say who it is."""

    def __init__(
        self, http: httpx2.AsyncClient, user: str, roles: str, ws_url: str, identity: Mapping[str, str]
    ) -> None:
        self.http = http
        self.user = user
        self.roles = roles
        self.ws_url = ws_url
        self._identity = identity

    @classmethod
    @asynccontextmanager
    async def as_user(cls, url: str, user: str, roles: str = "sales", tenant: str | None = None) -> AsyncIterator[Api]:
        """A development user."""
        async with cls.identified(url, user, roles, development_identity(user, roles, tenant)) as api:
            yield api

    @classmethod
    @asynccontextmanager
    async def with_token(cls, url: str, token: str, user: str, roles: str = "") -> AsyncIterator[Api]:
        """Whomever the token names."""
        async with cls.identified(url, user, roles, {"Authorization": f"Bearer {token}"}) as api:
            yield api

    @classmethod
    @asynccontextmanager
    async def identified(cls, url: str, user: str, roles: str, identity: Mapping[str, str]) -> AsyncIterator[Api]:
        async with httpx2.AsyncClient(base_url=url, headers=dict(identity), timeout=WAIT_S, trust_env=False) as http:
            yield cls(http, user, roles, re.sub(r"^http", "ws", url) + "/ws/chat", identity)

    @classmethod
    @asynccontextmanager
    async def as_new_user(cls, url: str, roles: str = "sales") -> AsyncIterator[Api]:
        """A user nobody has been before."""
        async with cls.as_user(url, f"u{uuid.uuid4().hex[:12]}", roles) as api:
            yield api

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[ChatSocket]:
        """A WebSocket as the same user, without a session yet."""
        async with ChatSocket.open(self.ws_url, self._identity, **options) as socket:
            yield socket

    async def get(self, path: str, **options: Any) -> Json:
        response = await self.http.get(path, **options)
        _demand(response.status_code == 200, f"GET {path}: {response.status_code} {response.text[:300]}")
        body = response.json()
        _demand(isinstance(body, dict), f"GET {path}: {body!r}")
        return dict(body)

    @asynccontextmanager
    async def posting(
        self, text: str, conversation_id: str | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> AsyncIterator[httpx2.Response]:
        """``POST /api/chat`` as the AI SDK's client does, its answer still to be read."""
        body = {
            "messages": [{"id": f"m{uuid.uuid4().hex}", "role": "user", "parts": [{"type": "text", "text": text}]}],
            "trigger": "submit-message",
        } | ({"id": conversation_id} if conversation_id else {})
        async with self.http.stream("POST", "/api/chat", json=body | fields, headers=headers) as response:
            yield response

    async def chat(self, text: str, conversation_id: str | None = None, **fields: Any) -> UiStream:
        """A whole turn over SSE, every chunk checked."""
        async with self.posting(text, conversation_id, **fields) as response:
            return await read_ui_stream(response)

    async def turn(self, turn_id: str) -> Turn:
        """The turn's whole log by ``/api/turns/{id}/events``, checked."""
        return (await self.turn_events(turn_id)).check()

    async def turn_events(self, turn_id: str, after: int = 0, last_event_id: str | None = None) -> Turn:
        """The events after a cursor, up to the end of the stream."""
        turn = Turn(turn_id)
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        path = f"/api/turns/{quote(turn_id)}/events"
        params = {"after": after} if after else {}
        async with self.http.stream("GET", path, params=params, headers=headers) as response:
            _demand(response.status_code == 200, f"GET {path}: {response.status_code}")
            _demand(response.headers["content-type"].startswith("text/event-stream"), "content-type")
            expected = (int(last_event_id.rpartition(":")[2]) if last_event_id is not None else after) + 1
            async for event in sse_events(response):
                frame = check_frame(event.data)
                if frame["type"] == "title":
                    continue
                turn.add(event.data)
                _demand(event.id == f"{turn_id}:{frame['seq']}", f"id {event.id} of event {frame['seq']}")
                _demand(frame["seq"] == expected, f"event {frame['seq']} came instead of {expected}")
                expected += 1
        _demand(turn.ended, "the stream ended before the turn")
        return turn

    async def messages(self, conversation_id: str) -> list[Json]:
        """All messages, oldest first."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = await self.get(
                f"/api/conversations/{conversation_id}/messages", params={"cursor": cursor} if cursor else {}
            )
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    async def check_stored(self, conversation_id: str, turn: Turn) -> Json:
        """The stored answer says what the turn said. Returns the message."""
        end = turn.last
        message_id = turn.events[0]["message_id"]
        stored = [message for message in await self.messages(conversation_id) if message["id"] == message_id]
        _demand(len(stored) == 1, f"{len(stored)} stored messages of id {message_id}")
        message = stored[0]
        text = "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        _demand(text == end["response"], f"stored {text!r}, answered {end['response']!r}")
        _demand(
            message["role"] == "assistant" and message["metadata"]["turn_id"] == turn.turn_id, f"message: {message}"
        )
        parts = {part["toolCallId"]: part for part in message["parts"] if part["type"].startswith("tool-")}
        for result in turn.results:
            part = parts.get(result["tool_call_id"])
            _demand(part is not None and part["type"] == f"tool-{result['name']}", f"not stored: {result}")
            assert part is not None
            _demand(part["state"] == ("output-available" if result["ok"] else "output-error"), f"stored as {part}")
            _demand(not result["ok"] or part["output"] == result["result"], f"stored as {part}")
        return message


async def read_ui_stream(response: httpx2.Response, *, chunks: int | None = None) -> UiStream:
    """Reads a stream to its end, or only its first chunks, which leaves it unfinished and unchecked as a whole."""
    if response.status_code != 200:
        await response.aread()
    _demand(response.status_code == 200, f"{response.status_code} {response.text[:300] if response.is_closed else ''}")
    _demand(response.headers["content-type"].startswith("text/event-stream"), "content-type")
    for name, value in UI_HEADERS.items():
        _demand(response.headers.get(name) == value, f"header {name}: {response.headers.get(name)}")
    stream = UiStream()
    async for event in sse_events(response):
        stream.add(event)
        if chunks is not None and len(stream.chunks) >= chunks:
            return stream
    return stream.check()


def check_problem(response: httpx2.Response) -> Json:
    """A failure as ``application/problem+json``. Returns its body."""
    _demand(response.headers["content-type"] == "application/problem+json", f"{response.headers['content-type']}")
    problem = response.json()
    names = {"type", "title", "status", "code", "detail", "retryable", "request_id"}
    _demand(problem.keys() - {"errors"} == names, f"fields: {sorted(problem)}")
    _demand(problem["status"] == response.status_code, f"status {problem['status']} in a {response.status_code}")
    _demand(problem["code"] == STATUS_CODES[response.status_code], f"code {problem['code']} of {response.status_code}")
    _demand(_fits(problem["retryable"], _BOOL), f"retryable: {problem}")
    _demand(problem["request_id"] == response.headers["x-request-id"], "request id")
    if response.status_code in {429, 503}:
        _demand("retry-after" in response.headers, "no Retry-After")
    return dict(problem)
