"""Turns as the event stream of OpenAI's responses.

    created · in_progress ( item added ─► deltas ─► item done )* ─► completed | incomplete | failed

The events are a function of the turn's log alone, and so are their ``sequence_number``: whoever comes back with
``starting_after`` is given the log from its beginning, and shown what comes after that number. A ``step.reset`` ends the open
item as ``incomplete``; the text comes again in an item of its own, and the final response has only what holds. A turn that
was cancelled ends with ``response.failed``, whose response says ``cancelled``: there is no other event for it.

Numbers follow each other but for a ``step.reset``: an owner that died has shown events which the log does not have, resets
stand in their places, and after those a number must mean the same to whoever saw the one and whoever is shown the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from serve_app.domain.conversation import ToolCallPart
from serve_app.domain.events import EventRecord, StepReset, ToolStarted
from serve_app.domain.turns import Turn
from serve_app.errors import ParleyError
from serve_app.turns.port import TailItem
from serve_app.wire.openai_chat import delta_of, joined, written_arguments
from serve_app.wire.openai_errors import error_body
from serve_app.wire.openai_response import (
    base_object,
    call_item,
    call_item_id,
    given_of,
    message_item,
    message_item_id,
    text_part,
)

_MOST_OF_ONE = 8
"""More events than any one event of a turn becomes."""

_ENCODE = msgspec.json.Encoder().encode
_STARTED = b'{"type":"turn.started"'
_TEXT = b'{"type":"text.delta"'
_REASONING = b'{"type":"reasoning.delta"'
_TOOL = b'{"type":"tool.started"'
_RESET = b'{"type":"step.reset"'


class _OpenItem:
    """An item whose text is coming. ``kind`` is that of its one part."""

    def __init__(self, item_id: str, index: int, kind: str, step: int) -> None:
        self.item_id = item_id
        self.index = index
        self.kind = kind
        self.step = step
        self.texts: list[bytes] = []
        place = _ENCODE({"item_id": item_id, "output_index": index, "content_index": 0})[1:-1]
        name = b"response.output_text.delta" if kind == "output_text" else b"response.reasoning_text.delta"
        self.prefix = b'event: %b\ndata: {"type":"%b",%b,"delta":' % (name, name, place)
        self.suffix = b',"logprobs":[],"sequence_number":' if kind == "output_text" else b',"sequence_number":'

    def text(self) -> str:
        return "" if not self.texts else msgspec.json.decode(joined(self.texts), type=str)


class ResponseEvents:
    """Encodes one turn from event 1 of its log on. ``after``: the last number its reader has seen."""

    def __init__(self, turn: Turn, after: int = -1) -> None:
        self._turn = turn
        self._callers = given_of(turn).tool_names
        self._after = after
        self._next = 0
        self._out: list[bytes] = []
        self._items = 0
        self._ids: set[str] = set()
        self._open: _OpenItem | None = None
        self._calls_of_step: dict[int, int] = {}
        self.ended = False
        """Whether the turn's end has come, so that :meth:`finish` may follow."""

    def encode(self, items: Sequence[TailItem]) -> bytes:
        """The events of a batch, which may be none."""
        for item in items:
            if isinstance(item, EventRecord) and not self.ended:
                self._record(item)
        return self._flush()

    def finish(self, response: dict[str, Any]) -> bytes:
        """The last event, with the response as it has ended."""
        status = response["status"]
        kind = status if status in {"completed", "incomplete"} else "failed"
        self._event(f"response.{kind}", {"response": response})
        return self._flush()

    def fail(self, error: ParleyError) -> bytes:
        """Ends a stream that cannot go on, though the turn may: SDKs raise at the ``error`` in it."""
        body = error_body(error)
        told = {"code": body["code"], "message": body["message"], "param": body["param"], "error": body}
        data = {"type": "error", **told, "sequence_number": self._next}
        return b"event: error\ndata: " + _ENCODE(data) + b"\n\n"

    def _record(self, record: EventRecord) -> None:
        body = record.body
        if body.startswith(_TEXT):
            self._delta(record, "output_text")
        elif body.startswith(_REASONING):
            self._delta(record, "reasoning_text")
        elif body.startswith(_STARTED):
            for name in ("response.created", "response.in_progress"):
                self._event(name, {"response": base_object(self._turn)})
        elif body.startswith(_RESET):
            reset = record.event()
            if isinstance(reset, StepReset) and self._open is not None and self._open.step >= reset.step:
                self._close("incomplete")
            self._next = max(self._next, record.seq * _MOST_OF_ONE)
        elif body.startswith(_TOOL):
            call = record.event()
            if isinstance(call, ToolStarted) and call.name in self._callers:
                self._call(record.step, call)
        elif record.terminal:
            self._close("completed" if body.startswith(b'{"type":"chat_response"') else "incomplete")
            self.ended = True

    def _delta(self, record: EventRecord, kind: str) -> None:
        item = self._open
        if item is None or item.kind != kind or item.step != record.step:
            self._close()
            item = self._begin(record, kind)
        delta = delta_of(record.body)
        item.texts.append(delta)
        if self._next > self._after:
            self._out.append(b"%b%b%b%d}\n\n" % (item.prefix, delta, item.suffix, self._next))
        self._next += 1

    def _begin(self, record: EventRecord, kind: str) -> _OpenItem:
        if kind == "output_text":
            item_id = self._new_id(message_item_id(self._turn, record.step, record.attempt))
            shown: dict[str, Any] = message_item(item_id, None, "in_progress")
            part = text_part("")
        else:
            item_id = self._new_id(f"rs_{self._turn.key.turn_id.rpartition('.')[2]}_{record.step}")
            shown = {"id": item_id, "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
            part = {"type": "reasoning_text", "text": ""}
        item = self._open = _OpenItem(item_id, self._items, kind, record.step)
        self._items += 1
        self._event("response.output_item.added", {"output_index": item.index, "item": shown})
        self._event("response.content_part.added", {**_place(item), "part": part})
        return item

    def _close(self, status: str = "completed") -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if self._next + 2 <= self._after:
            self._next += 3  # all of it has been seen
            return
        text = item.text()
        if item.kind == "output_text":
            self._event("response.output_text.done", {**_place(item), "text": text, "logprobs": []})
            part, shown = text_part(text), message_item(item.item_id, text, status)
        else:
            self._event("response.reasoning_text.done", {**_place(item), "text": text})
            part = {"type": "reasoning_text", "text": text}
            shown = {"id": item.item_id, "type": "reasoning", "status": status, "summary": [], "content": [part]}
        self._event("response.content_part.done", {**_place(item), "part": part})
        self._event("response.output_item.done", {"output_index": item.index, "item": shown})

    def _call(self, step: int, call: ToolStarted) -> None:
        self._close()
        position = self._calls_of_step.get(step, 0)
        self._calls_of_step[step] = position + 1
        part = ToolCallPart(tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments)
        item = call_item(self._turn, step, position, part)
        item["id"] = self._new_id(call_item_id(self._turn, step, position))
        index = self._items
        self._items += 1
        arguments = written_arguments(call.arguments)
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        self._event("response.output_item.added", {"output_index": index, "item": begun})
        self._event("response.function_call_arguments.delta", {**place, "delta": arguments})
        self._event("response.function_call_arguments.done", {**place, "name": call.name, "arguments": arguments})
        self._event("response.output_item.done", {"output_index": index, "item": item})

    def _new_id(self, wanted: str) -> str:
        """``wanted``, or the like of it where an item of that id has been void."""
        found, again = wanted, 1
        while found in self._ids:
            again += 1
            found = f"{wanted}_again{again}"
        self._ids.add(found)
        return found

    def _event(self, name: str, fields: dict[str, Any]) -> None:
        number = self._next
        self._next += 1
        if number > self._after:
            data = _ENCODE({"type": name, **fields, "sequence_number": number})
            self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def _flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


def _place(item: _OpenItem) -> dict[str, Any]:
    return {"item_id": item.item_id, "output_index": item.index, "content_index": 0}
