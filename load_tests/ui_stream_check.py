"""What a client may rely on of the AI SDK's stream: its chunks in order, ids that only grow, an end with ``finish``.

An id stands for an event of the turn. Within one part of text the events are neighbours, so that a number left out there is a
lost piece; between parts there are events that have no chunk.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from load_tests.answer import Answer, BrokenPromise


class UiChunk(Struct, rename="camel"):
    type: str
    id: str = ""
    delta: str = ""
    error_text: str = ""
    finish_reason: str = ""


decode_chunk = msgspec.json.Decoder(UiChunk).decode


class UiStreamCheck:
    """Feed it each event of the stream: its ``id`` line (empty if there was none) and its data."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._part = ""
        self._part_seq = 0
        self._finished: tuple[float, str] | None = None
        self._failed = ""

    def hear(self, event_id: str, data: bytes, at: float) -> None:
        """Raises BrokenPromise for a gap, a repetition, text outside its part, or anything behind the end."""
        if self.answer.ended:
            raise BrokenPromise("a chunk after the stream's end")
        if data == b"[DONE]":
            self._done()
            return
        if self._finished is not None:
            raise BrokenPromise("a chunk after finish")
        chunk = decode_chunk(data)
        if event_id:
            self._number(event_id)
        match chunk.type:
            case "text-delta":
                self._delta(chunk, at)
            case "text-start":
                if self._part:
                    raise BrokenPromise(f"the part {chunk.id} begins within {self._part}")
                self._part, self._part_seq = chunk.id, 0
            case "text-end":
                self._part = ""
            case "start-step":
                self.answer.new_step()
            case "data-step-reset":
                self.answer.void_step()
            case "tool-input-start":
                self.answer.tool_calls += 1
            case "error":
                self._failed = chunk.error_text or "error"
            case "abort":
                self._failed = "cancelled"
            case "finish":
                self._finished = at, chunk.finish_reason

    def _number(self, event_id: str) -> None:
        turn_id, _, seq = event_id.rpartition(":")
        number = int(seq) if seq.isdecimal() else 0
        if self.answer.turn_id not in ("", turn_id):
            raise BrokenPromise(f"an event of the turn {turn_id} while {self.answer.turn_id} was running")
        if number <= self.answer.last_seq:
            raise BrokenPromise(f"seq {number} after {self.answer.last_seq}")
        self.answer.turn_id, self.answer.last_seq = turn_id, number

    def _delta(self, chunk: UiChunk, at: float) -> None:
        if not self._part or chunk.id != self._part:
            raise BrokenPromise(f"text outside its part: {chunk.id or 'no id'} in {self._part or 'none'}")
        seq = self.answer.last_seq
        if self._part_seq and seq != self._part_seq + 1:
            raise BrokenPromise(f"seq {seq} after {self._part_seq}")
        self._part_seq = seq
        self.answer.came(chunk.delta, at)

    def _done(self) -> None:
        if self._finished is None:
            raise BrokenPromise("[DONE] without finish")
        at, reason = self._finished
        if self._failed or reason in ("error", "other"):
            self.answer.fail(at, "cancelled" if self._failed == "cancelled" else "failed", self._failed)
        else:
            self.answer.end(at, self.answer.text)
