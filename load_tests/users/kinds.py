"""The kinds of users a scenario may name, as classes for Locust: one for each entry."""

from __future__ import annotations

from random import Random

import gevent
from locust import User

from load_tests.answer import Answer
from load_tests.process import LoadProcess
from load_tests.users.asking import AskingUser
from load_tests.users.idle import IdleUser
from load_tests.users.recorded import RecordedTalk, recorded
from load_tests.users.talk import TOOL_QUESTIONS, SmallTalk, Talk
from load_tests.ways.completions import CompletionsWay
from load_tests.ways.sse import SseWay
from load_tests.ways.way import LeftInMidAnswer, Listener, Visitor, Way
from load_tests.ways.ws import WsWay

MAX_ARRIVALS_BEFORE_BREAK = 20


class _Chatting(AskingUser):
    """Over the way that its entry names."""

    abstract = True

    def make_way(self, visitor: Visitor) -> Way:
        match self.entry.kind if self.entry.kind in ("sse_chat", "openai_chat") else self.entry.wire:
            case "sse_chat":
                return SseWay(visitor)
            case "openai_chat":
                return CompletionsWay(visitor)
        return WsWay(visitor)

    def make_talk(self, chance: Random) -> Talk:
        return SmallTalk(self.entry, chance)


class _ToolUser(_Chatting):
    """Asks what cannot be answered without a tool; an answer without one has failed."""

    abstract = True

    def make_talk(self, chance: Random) -> Talk:
        return SmallTalk(self.entry, chance, TOOL_QUESTIONS)

    def judge(self, answer: Answer) -> None:
        if not answer.tool_calls:
            answer.code, answer.detail = "no_tool_call", "the answer came without a tool"


class _ReconnectingUser(_Chatting):
    """Breaks the connection in mid-answer, is away for a while, and resumes."""

    abstract = True

    def listener(self) -> Listener | None:
        if self.chance.random() >= self.entry.break_share:
            return None
        pieces = self.chance.randint(1, MAX_ARRIVALS_BEFORE_BREAK)
        away_s = self.entry.away_s.draw(self.chance)

        def leave(answer: Answer) -> None:
            if answer.turn_id and answer.arrivals >= pieces:
                if isinstance(self.way, WsWay):
                    self.way.abort()
                else:
                    self.way.close()
                gevent.sleep(away_s)
                raise LeftInMidAnswer

        return leave


class _RecordedUser(_Chatting):
    """Says again what was recorded."""

    abstract = True

    def make_talk(self, chance: Random) -> Talk:
        return RecordedTalk(self.entry, chance, recorded(self.entry), self.visitor.number)


_BASES: dict[str, type[User]] = {
    "ws_chat": _Chatting,
    "sse_chat": _Chatting,
    "openai_chat": _Chatting,
    "tools": _ToolUser,
    "reconnecting": _ReconnectingUser,
    "transcript": _RecordedUser,
    "idle": IdleUser,
}


def classes_for(process: LoadProcess) -> list[type[User]]:
    """One class for each entry of the scenario, by its weight or its fixed number. Raises ConfigError for transcripts that cannot
    be read."""
    classes: list[type[User]] = []
    share = 0
    for position, entry in enumerate(process.scenario.users):
        if entry.kind == "transcript":
            recorded(entry)
        attributes = {
            "process": process,
            "entry": entry,
            "share": share if entry.count is None else -1,
            "weight": entry.weight if entry.count is None else 0,
            "fixed_count": entry.count or 0,
            "abstract": False,
        }
        share += entry.count is None
        if entry.weight > 0 or entry.count is not None:
            classes.append(type(f"{entry.kind}_{position + 1}", (_BASES[entry.kind],), attributes))
    return classes
