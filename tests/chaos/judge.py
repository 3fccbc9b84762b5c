"""Compares the ledger with the store, and with what the tools did. Everything is read through the public API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.api import Api, Unanswered, tool_runs
from tests.chaos.desk import ToolRun
from tests.chaos.ledger import Entry
from tests.chaos.report import ZEROES
from tests.chaos.transcript import TERMINAL, Json, difference, shown_text

AT_ONCE = 4
BOOK = "desk.book"
STATE_OF = {"chat_response": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}


@dataclass
class Verdict:
    """Counts of turns, and a sentence for each that is not as it should be."""

    turns: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)

    def found(self, kind: str, sentence: str) -> None:
        self.counts[kind] += 1
        self.sentences.append(f"{kind}: {sentence}")

    @property
    def figures(self) -> dict[str, int]:
        """The zeroes first, then what is counted for information."""
        informative = ("acknowledged", "answered", "cancelled", "failed", "resumes", "breaks", "refusals", "resets",
                       "reads repeated", "calls without a result")  # fmt: skip
        return {"turns": self.turns} | {name: self.counts[name] for name in (*ZEROES, *informative)}

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold."""
        return [sentence for sentence in self.sentences if sentence.split(":")[0] in ZEROES]


async def judge(
    entries: Sequence[Entry], api: Api, session: aiohttp.ClientSession, desk_url: str, *, shown_first: bool = False
) -> Verdict:
    """Looks each message up in the store and compares.

    ``shown_first``: what is shown is stored later. Then a crash may take it back, and a reset is stored in its place.
    """
    verdict = Verdict(turns=len(entries))
    runs = await tool_runs(desk_url, session)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(entry: Entry) -> None:
        async with gate:
            try:
                await _Case(entry, verdict, api, shown_first).examine(runs)
            except Unanswered as error:
                verdict.found("not judged", f"{entry.plan.request_id}: {error}")

    await asyncio.gather(*(one(entry) for entry in entries))
    return verdict


class _Case:
    """One message against the store."""

    def __init__(self, entry: Entry, verdict: Verdict, api: Api, shown_first: bool) -> None:
        self._shown_first = shown_first
        self._entry = entry
        self._plan = entry.plan
        self._verdict = verdict
        self._api = api

    async def examine(self, runs: Sequence[ToolRun]) -> None:
        self._count()
        messages = await self._api.messages(self._plan.conversation_id)
        asked = [message for message in messages if message["role"] == "user"]
        if len(asked) > 1 or len(messages) > 2:
            self._found("doubled", f"stored {len(asked)} times, {len(messages)} messages")
        if self._entry.acknowledged and [_text(message) for message in asked[:1]] != [self._plan.content]:
            self._found("lost", "acknowledged, and not in the store")
        for sentence in self._entry.transcript.violations:
            self._found("gaps" if "gap" in sentence else "protocol broken", sentence)
        self._tools([run for run in runs if run.request_id == self._plan.request_id])
        if not self._entry.acknowledged:
            self._found("without end", f"never acknowledged: {self._entry.gave_up}")
            return
        end = self._entry.transcript.terminal
        if end is None:
            self._found("without end", f"{self._entry.gave_up}; last event {self._entry.transcript.cursor}")
            return
        await self._compare(end, messages)

    def _count(self) -> None:
        entry, counts = self._entry, self._verdict.counts
        counts["acknowledged"] += entry.acknowledged
        counts["resumes"] += entry.resumes
        counts["breaks"] += len(entry.breaks)
        counts["refusals"] += len(entry.refusals)
        counts["resets"] += entry.transcript.resets
        kind = {"chat_response": "answered", "turn.failed": "failed", "turn.cancelled": "cancelled"}.get(entry.outcome)
        if kind is not None:
            counts[kind] += 1
        if kind == "failed":
            why = entry.transcript.terminal or {}
            self._verdict.sentences.append(
                f"failed: {self._entry.transcript.turn_id} {why.get('code')}: {why.get('message')}"
            )

    def _tools(self, runs: Sequence[ToolRun]) -> None:
        booked = Counter(run.item for run in runs if run.tool == "book")
        for item, times in booked.items():
            if times > 1:
                self._found("tools run twice", f"book({item}) ran {times} times")
        booked_well = self._booked_well()
        if booked.total() < booked_well:
            self._found("protocol broken", "a booking that never ran was said to have gone well")
        looked = Counter(run.item for run in runs if run.tool == "look")
        self._verdict.counts["reads repeated"] += sum(times - 1 for times in looked.values())

    def _booked_well(self) -> int:
        finished = [event for event in self._entry.transcript.events.values() if event["type"] == "tool.finished"]
        self._verdict.counts["calls without a result"] += sum(not event["ok"] for event in finished)
        return sum(event["ok"] and event["name"] == BOOK for event in finished)

    async def _compare(self, end: Json, messages: Sequence[Json]) -> None:
        transcript = self._entry.transcript
        events = await self._api.replay(transcript.turn_id)
        ends = [event for event in events if event["type"] in TERMINAL]
        if len(ends) != 1 or ends != events[-1:]:
            self._found("ends != 1", f"{len(ends)} terminal events in {len(events)}")
            return
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            self._found("gaps", "the stored events are not contiguous from 1")
        for event in events:
            if self._shown_first and event["type"] == "step.reset":
                continue
            seen = transcript.events.get(event["seq"])
            if seen is not None and (differs := difference(seen, event)) is not None:
                self._found("text differs", f"event {event['seq']} was shown otherwise than it is stored: {differs}")
        if end["seq"] != events[-1]["seq"]:
            self._found("protocol broken", f"ended with {end['seq']}, stored {events[-1]['seq']}")
        self._texts(ends[0], events, messages)
        turn = await self._api.get(f"/api/turns/{transcript.turn_id}")
        if turn.status != 200 or turn.body["state"] != STATE_OF[ends[0]["type"]]:
            self._found("protocol broken", f"the turn is {turn.body}, its end {ends[0]['type']}")

    def _texts(self, end: Json, events: list[Json], messages: Sequence[Json]) -> None:
        said = end["response"]
        stored = "".join(_text(message) for message in messages if message["role"] == "assistant")
        versions = {
            "merged by the client": self._entry.transcript.text, "replayed": shown_text(events), "stored": stored,
        }  # fmt: skip
        for name, text in versions.items():
            if text != said:
                self._found("text differs", f"{name}: {_unlike(text, said)}")
        expected = self._plan.model.answer
        if end["type"] == "chat_response" and said != expected:
            self._found("wrong answer", _unlike(said, expected))
        elif not expected.startswith(said):
            self._found("wrong answer", f"{end['type']}, {_unlike(said, expected)}")

    def _found(self, kind: str, sentence: str) -> None:
        who = (
            f"{self._plan.transport} {self._plan.model.name} {self._entry.transcript.turn_id or self._plan.request_id}"
        )
        self._verdict.found(kind, f"{who}: {sentence}")


def _text(message: Json) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def _unlike(text: str, expected: str) -> str:
    """Where two texts part."""
    at = next(
        (i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), min(len(text), len(expected))
    )
    return f"{len(text)} and {len(expected)} characters, at {at}: {text[at : at + 40]!r} and {expected[at : at + 40]!r}"
