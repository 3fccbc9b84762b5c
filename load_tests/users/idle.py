"""A user who is only there: holds a WebSocket, pings now and then, and expects an answer."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

import gevent
import msgspec
from locust import User, task

from load_tests.answer import BrokenPromise, Refused
from load_tests.clock import now
from load_tests.process import LoadProcess
from load_tests.ways.way import OPEN_TIMEOUT_S
from load_tests.ways.ws import WsWay
from serve_app.capacity.scenario import UserEntry

PONG_TIMEOUT_S = 10.0
TEND_S = 8.0
RETRY_S = 1.0


class IdleUser(User):
    """One of an entry's users."""

    abstract = True
    process: ClassVar[LoadProcess]
    entry: ClassVar[UserEntry]
    share: ClassVar[int]

    def on_start(self) -> None:
        self.visitor, self.chance = self.process.visitor(self.host)
        self.way = WsWay(self.visitor)
        self._opened_at: float | None = None

    def on_stop(self) -> None:
        self._closed()

    @task
    def hold(self) -> None:
        """From one ping to the next."""
        try:
            if self._opened_at is None:
                self._open()
            self._wait(self.entry.ping_s.draw(self.chance))
            with gevent.Timeout(PONG_TIMEOUT_S, TimeoutError(f"no pong within {PONG_TIMEOUT_S:g} s")):
                self._fire("pong", self.way.ping())
        except (OSError, Refused, BrokenPromise, msgspec.DecodeError) as error:
            code = error.code if isinstance(error, Refused) else "connection"
            self._fire("pong" if self._opened_at is not None else "connect", 0.0, error)
            self._closed(code, str(error))
            gevent.sleep(RETRY_S)

    def _open(self) -> None:
        began = now()
        with gevent.Timeout(OPEN_TIMEOUT_S, TimeoutError("the server did not answer in time")):
            self.way.open()
        self._opened_at = now()
        self.process.session(self.visitor.user, connect_s=self._opened_at - began)
        self._fire("connect", self._opened_at - began)

    def _wait(self, seconds: float) -> None:
        """The server's own pings are answered meanwhile."""
        at = now() + seconds
        while (left_s := at - now()) > 0:
            gevent.sleep(min(left_s, TEND_S))
            self.way.tend()

    def _closed(self, code: str = "", detail: str = "") -> None:
        with suppress(OSError):
            self.way.close()
        if self._opened_at is not None or code:
            held_s = None if self._opened_at is None else now() - self._opened_at
            self.process.session(self.visitor.user, held_s=held_s, code=code, detail=detail)
        self._opened_at = None

    def _fire(self, name: str, seconds: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="idle", name=name, response_time=seconds * 1000, response_length=0, exception=error, context={}
        )
