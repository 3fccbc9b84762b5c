"""A user who asks: prepares, waits until a turn is due, asks, checks, writes down.

Whatever can be prepared (a connection, a conversation) is, before a turn is taken, so that its latency is the server's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import ClassVar

import gevent
import msgspec
from gevent import GreenletExit
from locust import User, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from load_tests.answer import Answer, BrokenPromise, Refused
from load_tests.arrivals import Due
from load_tests.clock import now
from load_tests.filler import expected_text
from load_tests.process import LoadProcess
from load_tests.users.talk import Talk
from load_tests.ways.way import OPEN_TIMEOUT_S, Listener, Visitor, Way
from serve_app.capacity.samples import TurnSample
from serve_app.capacity.scenario import UserEntry

TEND_S = 8.0
"""How often a connection that waits is looked after."""
RETRY_S = 0.5
MAX_RETRY_S = 5.0


class AskingUser(User):
    """One of an entry's users. Subclasses are made for each entry of a scenario."""

    abstract = True
    process: ClassVar[LoadProcess]
    entry: ClassVar[UserEntry]
    share: ClassVar[int]
    """Its place among the entries that share open arrivals; -1 where it waits for nobody but itself."""

    def make_way(self, visitor: Visitor) -> Way:
        raise NotImplementedError

    def make_talk(self, chance: Random) -> Talk:
        """What is said, conversation by conversation."""
        raise NotImplementedError

    def listener(self) -> Listener | None:
        """Who listens to the next answer while it comes."""
        return None

    def judge(self, answer: Answer) -> None:
        """A last look at an answer that is complete; may set its ``code``."""

    def on_start(self) -> None:
        self.visitor, self.chance = self.process.visitor(self.host)
        self.way = self.make_way(self.visitor)
        self.talk = self.make_talk(self.chance)
        self._opened_at: float | None = None
        self._retry_s = RETRY_S
        self._free_at = now()
        self._first = True

    def on_stop(self) -> None:
        self._closed()

    @task
    def turn(self) -> None:
        """One turn, from getting ready to what came of it."""
        if not self._prepare():
            return
        due = self._next_due()
        if due is None:
            return
        question = self.talk.next_question()
        answer = Answer(due.at, expected_text(question.model_id))
        sent_at = now()
        self.process.turn_began(due, answer)
        self.process.busy[self.share] += 1
        try:
            with self._judging(answer):
                self.way.ask(question, answer, self.listener())
                if not answer.code:
                    self.judge(answer)
        except GreenletExit:
            if self.process.draining and not self.process.broken_off:
                answer.code, answer.detail = answer.code or "no_end", "the run was over"
                self._report(self.process.turn_ended(self.visitor.user, due, sent_at, answer))
            else:
                self.process.turn_forgotten(answer)
            raise
        except Exception as error:  # nothing that was thought of; counted all the same, and Locust logs it
            answer.code, answer.detail, answer.ended_at = "unexpected", f"{type(error).__name__}: {error}", None
            self._closed()
            self._free_at = now()
            self._report(self.process.turn_ended(self.visitor.user, due, sent_at, answer))
            raise
        finally:
            self.process.busy[self.share] -= 1
        self._free_at = now()
        self._report(self.process.turn_ended(self.visitor.user, due, sent_at, answer))

    @contextmanager
    def _judging(self, answer: Answer) -> Iterator[None]:
        """What goes wrong with an answer becomes its code; its connection is not used again."""
        timeout = gevent.Timeout(self.entry.turn_timeout_s)
        try:
            with timeout:
                yield
            return
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            answer.code, answer.detail = "no_end", f"no end within {self.entry.turn_timeout_s:g} s"
        except BrokenPromise as error:
            answer.code, answer.detail = "broken_promise", str(error)
        except msgspec.DecodeError as error:
            answer.code, answer.detail = "broken_promise", f"a frame that cannot be read: {error}"
        except Refused as error:
            answer.code, answer.detail = error.code, error.detail
            return  # said in order, and the connection is as good as before
        except OSError as error:
            answer.code, answer.detail = "connection", str(error) or type(error).__name__
        answer.ended_at = None
        self._closed(answer.code if answer.code == "connection" else "", answer.detail)

    # -- before a turn -----------------------------------------------------------------------------------------------

    def _prepare(self) -> bool:
        """Connected, and in the conversation that the next question belongs to; False after a pause where that failed."""
        began = now()
        try:
            with gevent.Timeout(OPEN_TIMEOUT_S, TimeoutError("the server did not answer in time")):
                fresh = self.talk.begins_anew()
                if self._opened_at is None:
                    self.way.open()
                    self._opened_at = now()
                    self.process.session(self.visitor.user, connect_s=self._opened_at - began)
                    self._fire("connect", self._opened_at - began)
                    if self._first:
                        self._first, fresh = False, False  # a connection comes with a conversation
                if fresh:
                    self.way.new_conversation()
        except (OSError, Refused, BrokenPromise, msgspec.DecodeError) as error:
            code, detail = (error.code, error.detail) if isinstance(error, Refused) else ("connection", str(error))
            self._closed(code, detail)
            self._fire("connect", now() - began, error)
            gevent.sleep(self._retry_s)
            self._retry_s = min(self._retry_s * 2, MAX_RETRY_S)
            return False
        self._retry_s = RETRY_S
        return True

    def _next_due(self) -> Due | None:
        """Waits; None where the connection was lost meanwhile."""
        if not self.process.begun.is_set():
            self.process.begun.wait()
            self._free_at = now()  # who came early is not late
        if self.process.arrivals is not None and self.share >= 0:
            while (due := self.process.arrivals.take(self.share, TEND_S)) is None:
                if not self._tend():
                    return None
            return due
        at = self._free_at + self.talk.pause_s()
        while (wait_s := at - now()) > 0 or self.process.draining:
            if self._state == LOCUST_STATE_STOPPING:
                raise StopUser
            gevent.sleep(TEND_S if self.process.draining else min(wait_s, TEND_S))
            if not self._tend():
                return None
        phase = self.process.phase
        return Due(phase.index if phase is not None else 0, at)

    def _tend(self) -> bool:
        try:
            self.way.tend()
        except (OSError, msgspec.DecodeError) as error:
            self._closed("connection", str(error))
            return False
        return True

    # -- after it ----------------------------------------------------------------------------------------------------

    def _closed(self, code: str = "", detail: str = "") -> None:
        """The connection is no more, in order or not."""
        with suppress(OSError):
            self.way.close()
        if self._opened_at is not None or code:
            held_s = None if self._opened_at is None else now() - self._opened_at
            self.process.session(self.visitor.user, held_s=held_s, code=code, detail=detail)
        self._opened_at = None

    def _report(self, sample: TurnSample) -> None:
        """For Locust's own table."""
        if sample.ttft_ms is not None:
            self._fire("first text", sample.ttft_ms / 1000)
        failure = RuntimeError(f"{sample.code}: {sample.detail}") if sample.code else None
        self._fire("turn", (sample.turn_ms or 0) / 1000, failure, sample.text_bytes)

    def _fire(self, name: str, seconds: float, error: Exception | None = None, length: int = 0) -> None:
        self.environment.events.request.fire(
            request_type=self.entry.kind, name=name, response_time=seconds * 1000, response_length=length,
            exception=error, context={},
        )  # fmt: skip
