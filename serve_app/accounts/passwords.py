"""Passwords: what is good enough for one, and its Argon2id hash.

A hash takes about 64 MiB and tens of milliseconds on purpose, so it is made in a thread, a few at a time, and only so many wait.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from serve_app.errors import InvalidInput, Overloaded

MAX_PASSWORD_CHARS = 256
MAX_HASHING = 2
MAX_WAITING = 16
_FEW = 5
"""A password of fewer different characters is no secret."""

T = TypeVar("T")


class Passwords:
    def __init__(self, *, min_chars: int, hasher: PasswordHasher | None = None) -> None:
        self._min_chars = min_chars
        self._hasher = hasher or PasswordHasher()
        # Threads of its own: a client that hangs up does not stop a hash, and must not make room for another beside it.
        self._threads = ThreadPoolExecutor(MAX_HASHING, thread_name_prefix="passwords")
        self._waiting = 0
        self._nobodys: str | None = None

    def require_good(self, password: str, login: str) -> None:
        """Raises InvalidInput. Length is what counts; composition rules make passwords worse."""
        normal = _normal(password)
        if not self._min_chars <= len(normal) <= MAX_PASSWORD_CHARS:
            raise InvalidInput(f"A password has {self._min_chars} to {MAX_PASSWORD_CHARS} characters.")
        if not _is_text(normal):
            raise InvalidInput("A password has whole characters only.")
        if len(set(normal.lower())) < _FEW:
            raise InvalidInput(f"A password has at least {_FEW} different characters.")
        name = login.partition("@")[0]
        if normal.lower() == login or (len(name) >= _FEW and name in normal.lower()):
            raise InvalidInput("The login name is no part of a password.")

    async def hash(self, password: str) -> str:
        """Raises Overloaded."""
        return await self._in_turn(lambda: self._hasher.hash(_normal(password)))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Whether it is the one. With an empty hash, of nobody, it takes as long to say no. Raises Overloaded."""
        nobodys = not password_hash
        known = password_hash or await self._nobodys_hash()
        return await self._in_turn(lambda: self._matches(known, password)) and not nobodys

    def outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than a hash would be now."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _normal(password[: 2 * MAX_PASSWORD_CHARS]))
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False

    async def _nobodys_hash(self) -> str:
        if self._nobodys is None:
            self._nobodys = await self._in_turn(lambda: self._hasher.hash("nobody's password"))
        return self._nobodys

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Overloaded("Too many people log in at this moment.", None, 1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _normal(password: str) -> str:
    """However a keyboard composes it, it is the same password."""
    return unicodedata.normalize("NFKC", password)


def _is_text(value: str) -> bool:
    """JSON can write halves of characters, which nothing can hash."""
    return not any("\ud800" <= one <= "\udfff" for one in value)
