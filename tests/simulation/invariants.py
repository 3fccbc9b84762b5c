"""What holds of every turn once all is quiet, read from the store and from what the clients show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec

from serve_app.domain.conversation import Message
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey
from serve_app.domain.turns import Turn
from serve_app.domain.usage import TokenCounts
from serve_app.settings import TurnSettings
from serve_app.turns.calls import MAX_TRIES, UNKNOWN_OUTCOME
from tests.simulation.client import Client
from tests.simulation.ledger import Ledger, TurnAccount, Verdict, at_once
from tests.simulation.schedule import READ_TOOL, WRITE_TOOL
from tests.simulation.stages import MAX_COUNTED, Outside

TERMINAL = {"chat_response": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}
STATUS = {"completed": "complete", "failed": "failed", "cancelled": "cancelled"}
PIECE = re.compile(r"<(\d+)\.(\d+)>")


def check_end(ledger: Ledger, clients: Sequence[Client], outside: Outside, settings: TurnSettings) -> None:
    """Puts the first thing that does not hold into the ledger's verdict."""
    for account in ledger.turns.values():
        _TurnCheck(ledger, account, outside, settings).run()
    for key in {account.key.conversation: None for account in ledger.turns.values()}:
        _check_conversation(ledger, key)
    _check_acknowledged(ledger, clients)
    if ledger.verdict.violation is None:
        _check_views(ledger, clients)
    for call, tools in outside.effects.items():
        if WRITE_TOOL in tools:
            ledger.verdict.expect(len(tools) == 1, "a tool that may not run twice ran once", f"{call}: {tools}")


class _TurnCheck:
    """The checks of one turn. ``events`` is its log, decoded."""

    def __init__(self, ledger: Ledger, account: TurnAccount, outside: Outside, settings: TurnSettings) -> None:
        self.verdict: Verdict = ledger.verdict
        self.account = account
        self.outside = outside
        self.settings = settings
        self.turn: Turn = ledger.turn(account.key)
        self.records = ledger.records(account.key)
        self.events: list[dict[str, Any]] = [msgspec.json.decode(record.body) for record in self.records]
        self.messages = _messages(ledger, account.key.conversation)

    def expect(self, holds: bool, invariant: str, detail: object) -> None:
        self.verdict.expect(holds, invariant, f"{self.account.key.turn_id}: {detail}")

    def run(self) -> None:
        self.log()
        if self.verdict.violation is None:
            self.message()
            self.shown()
            self.generations()
            self.tools()
            self.attempts()

    def log(self) -> None:
        seqs = [event["seq"] for event in self.events]
        self.expect(self.turn.ended, "every accepted turn ends", self.turn.state)
        self.expect(seqs == list(range(1, len(seqs) + 1)), "seq is contiguous from 1", seqs)
        self.expect(self.turn.last_seq == len(seqs), "the turn knows its last seq", (self.turn.last_seq, seqs))
        ids = {event["turn_id"] for event in self.events}
        self.expect(ids == {self.account.key.turn_id}, "a log has events of its turn only", ids)
        ends = [event["type"] for event in self.events if event["type"] in TERMINAL]
        self.expect(len(ends) == 1, "exactly one terminal event", ends)
        last = self.events[-1]["type"]
        self.expect(last in TERMINAL, "the terminal event is the last", last)
        self.expect(TERMINAL.get(last) == self.turn.state, "the state says how it ended", (last, self.turn.state))

    @property
    def response(self) -> str:
        text: str = self.events[-1]["response"]
        return text

    def message(self) -> None:
        own = [message for message in self.messages if message.turn_id == self.account.key.turn_id]
        answers = [message for message in own if message.role == "assistant"]
        self.expect(len(answers) == 1, "one answer is stored", len(answers))
        answer = answers[0]
        self.expect(answer.text == self.response, "the stored message is the answer", (answer.text, self.response))
        self.expect(answer.status == STATUS[self.turn.state], "the message says how it ended", answer.status)
        self.expect(answer.usage == self.turn.usage, "usage is counted once", (answer.usage, self.turn.usage))
        questions = [message.text for message in own if message.role == "user"]
        expected = [] if self.answers_anew() else [self.account.accepted.query.content]
        self.expect(questions == expected, "a message is stored exactly once", questions)

    def answers_anew(self) -> bool:
        replaced = self.account.accepted.replaces
        return any(message.message_id == replaced and message.role == "assistant" for message in self.messages)

    def shown(self) -> None:
        """By the steps that the records name, where clients go by the order of events."""
        texts: dict[int, str] = {}
        for record, event in zip(self.records, self.events, strict=True):
            if event["type"] == "text.delta":
                texts[record.step] = texts.get(record.step, "") + event["delta"]
            elif event["type"] == "step.reset":
                texts[event["step"]] = ""
        shown = "".join(texts[step] for step in sorted(texts))
        self.expect(shown == self.response, "the log's deltas are the answer", (shown, self.response))

    def generations(self) -> None:
        """No two generations are spliced, and every generation in the answer was counted once."""
        begun = self.outside.generations[self.account.key.turn_id]
        pieces = [(int(number), int(piece)) for number, piece in PIECE.findall(self.response)]
        groups = [(number, [piece for _, piece in group]) for number, group in groupby(pieces, key=lambda p: p[0])]
        steps = [begun[number][0] for number, _ in groups]
        self.expect(steps == sorted(set(steps)), "two generations are never spliced", (self.response, begun))
        for index, (number, group) in enumerate(groups):
            text = "".join(f"<{number}.{piece}>" for piece in group)
            cut = self.turn.state != "completed" and index == len(groups) - 1
            whole = begun[number][1].startswith(text) if cut else begun[number][1] == text
            self.expect(whole, "a generation is shown whole, from its beginning", (self.response, begun[number]))
        usage = self.turn.usage
        if len(begun) <= MAX_COUNTED:
            counted = [number for number in range(len(begun)) if usage.input_tokens >> number & 1]
            once = len(counted) == usage.output_tokens == len(self.turn.steps)
            different = len({begun[number][0] for number in counted}) == len(counted)
            self.expect(once and different, "usage is counted once", (usage, counted, begun, len(self.turn.steps)))
            estimates, unfinished = usage.reasoning_tokens, len(begun) - len(counted)
            self.expect(estimates <= unfinished, "what broke off is estimated once", (estimates, counted, begun))
            self.expect(usage.estimated == (estimates > 0), "an estimate says so", usage)
            if self.turn.state == "completed":
                told = msgspec.convert(self.events[-1]["usage"], TokenCounts)
                self.expect(told == usage.tokens, "usage is counted once", (told, usage))
                missing = {number for number, _ in groups} - set(counted)
                self.expect(not missing, "what is shown is counted", missing)

    def tools(self) -> None:
        started = [event["tool_call_id"] for event in self.events if event["type"] == "tool.started"]
        finished = {event["tool_call_id"]: event for event in self.events if event["type"] == "tool.finished"}
        ends = Counter(event["tool_call_id"] for event in self.events if event["type"] == "tool.finished")
        self.expect(len(started) == len(set(started)), "a call is started once", started)
        self.expect(set(finished) <= set(started), "no call ends that was not started", (started, list(finished)))
        self.expect(all(count == 1 for count in ends.values()), "a call has one result", ends)
        request_id = self.account.accepted.request_id
        for event in finished.values():
            ran = self.outside.effects_by_call[request_id, event["tool_call_id"]]
            if event["name"] == WRITE_TOOL:
                self.expect(ran <= 1, "a tool that may not run twice ran once", (event, ran))
            self.expect(ran >= 1 or not event["ok"], "a result that is reported ok was had", event)
            unknown = event["name"] == READ_TOOL and event["result"] == UNKNOWN_OUTCOME
            self.expect(not unknown or self.stage_died(), "a tool that may run twice is run again", event)
        if self.turn.state == "completed":
            self.expect(set(finished) == set(started), "every call has a result", (started, list(finished)))
            told = {item["tool_call_id"]: (item["ok"], item["result"]) for item in self.events[-1]["tool_feedback"]}
            shown = {event["tool_call_id"]: (event["ok"], event["result"]) for event in finished.values()}
            self.expect(told == shown, "the feedback is what was shown", (told, shown))

    def stage_died(self) -> bool:
        """So often that a tool that may run twice was given up."""
        died = [fault for fault in self.outside.faults.struck if fault.kind.startswith("stage_dies")]
        return len(died) >= MAX_TRIES

    def attempts(self) -> None:
        limit = self.settings.max_attempts
        calls = self.account.model_calls
        self.expect(max(calls.values(), default=0) <= limit, "a step has a bounded number of attempts", calls)


def _messages(ledger: Ledger, key: ConversationKey) -> tuple[Message, ...]:
    """All of a conversation's, those that were replaced, too."""
    return at_once(ledger.store.list_messages(key, limit=200, replaced=True)).items


def _check_conversation(ledger: Ledger, key: ConversationKey) -> None:
    conversation = at_once(ledger.store.get_conversation(key))
    shown = at_once(ledger.store.list_messages(key, limit=200)).items
    expect, where = ledger.verdict.expect, key.conversation_id
    expect(conversation.active_turn_id is None, "a quiet conversation runs nothing", f"{where}: {conversation}")
    expect(conversation.message_count == len(shown), "the messages shown are counted", f"{where}: {conversation}")
    ids = [message.message_id for message in _messages(ledger, key)]
    expect(len(ids) == len(set(ids)), "a message is stored exactly once", f"{where}: {ids}")
    roles = [message.role for message in shown]
    expect(roles == ["user", "assistant"] * (len(roles) // 2), "questions and answers alternate", f"{where}: {roles}")
    order = {account.key.turn_id: number for number, account in enumerate(ledger.conversation_turns(key))}
    asked = [order[message.turn_id] for message in shown]
    expect(asked == sorted(asked), "the order shown is the order accepted", f"{where}: {asked}")
    ends = [account.ended_at_s or 0.0 for account in ledger.conversation_turns(key)]
    expect(all(ends), "every accepted turn ends", f"{where}: {ends}")


def _check_acknowledged(ledger: Ledger, clients: Sequence[Client]) -> None:
    by_client_id = Counter(account.accepted.client_turn_id for account in ledger.turns.values())
    for client_turn_id, count in by_client_id.items():
        ledger.verdict.expect(count == 1, "a message is stored exactly once", f"{client_turn_id}: {count} turns")
    for sending in (sending for client in clients for sending in client.sendings):
        if sending.turn_id is not None:
            account = ledger.turns.get(sending.turn_id)
            stored = account is not None and account.accepted.query.content == sending.content
            ledger.verdict.expect(stored, "an acknowledged message is stored", str(sending))


def _check_views(ledger: Ledger, clients: Sequence[Client]) -> None:
    for client in clients:
        for view in client.views.values():
            where = f"{client.name}, {view.turn_id}"
            log = ledger.records(ledger.turns[view.turn_id].key)
            ledger.verdict.expect(view.ended, "every client sees the end", f"{where}: {view.cursor} of {len(log)}")
            alike = len(view.records) == len(log) and all(map(_as_stored, view.records, log))
            ledger.verdict.expect(alike, "a client shows the log", where)


def _as_stored(shown: EventRecord, stored: EventRecord) -> bool:
    """What was shown before it was stored, and never was, is void in the log."""
    return shown == stored or stored.body.startswith(b'{"type":"step.reset"')
