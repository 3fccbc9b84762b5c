"""Limits of requests and connections: how large, how fast, how often broken, how many of them a user may have."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from serve_app.errors import TooLarge
from serve_app.files.intake import file_too_large
from serve_app.settings import Settings
from serve_app.wire.openai_errors import PREFIX
from serve_app.wire.problems import body_too_large

Clock = Callable[[], float]
VIOLATION_WINDOW_S = 60.0
CHAT_PATH = "/api/chat"
FILE_PATH = "/api/file"
MULTIPART_BYTES = 65_536
"""What an upload's body may have beside its file."""


def body_limit_bytes(settings: Settings, path: str) -> int:
    """The largest body a request to ``path`` may have."""
    if path == FILE_PATH:
        return settings.files.max_bytes + MULTIPART_BYTES
    if path.startswith(PREFIX):
        return settings.limits.v1_body_bytes
    return settings.limits.chat_body_bytes if path == CHAT_PATH else settings.limits.body_bytes


def too_large(settings: Settings, path: str) -> TooLarge:
    """The refusal of a larger one."""
    if path == FILE_PATH:
        return file_too_large(settings.files.max_bytes)
    return body_too_large(body_limit_bytes(settings, path))


class TokenBucket:
    """Lets ``rate`` messages a second pass, and as many at once after a pause."""

    def __init__(self, rate: int, clock: Clock = time.monotonic) -> None:
        self._rate = float(rate)
        self._clock = clock
        self._tokens = self._rate
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Violations:
    """Counts broken limits within the last minute."""

    def __init__(self, allowed: int, clock: Clock = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        self._at: deque[float] = deque(maxlen=allowed + 1)

    def too_many(self) -> bool:
        """Records one and says whether that makes more than allowed."""
        now = self._clock()
        self._at.append(now)
        while self._at[0] < now - VIOLATION_WINDOW_S:
            self._at.popleft()
        return len(self._at) > self._allowed


class ConnectionCount:
    """Open connections by user, in this replica."""

    def __init__(self, per_user: int) -> None:
        self._per_user = per_user
        self._open: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        return self._open.total()

    def enter(self, user: tuple[str, str]) -> bool:
        """Counts a connection; False, and not counted, when the user has as many as allowed."""
        if self._open[user] >= self._per_user:
            return False
        self._open[user] += 1
        return True

    def leave(self, user: tuple[str, str]) -> None:
        self._open[user] -= 1
        if self._open[user] <= 0:
            del self._open[user]
