"""A Redis of the test's own: Debian's ``redis-server`` on a socket in a folder, keeping nothing.

Where it is not installed the tests that need it are skipped; with ``REQUIRE_REDIS=1`` they fail instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

START_S = 10.0
UNTIL_S = 10.0


class RedisServer:
    """Started by :meth:`start`, ended by :meth:`stop`; ``pause`` leaves it connected and silent."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            missing = "redis-server is not installed (apt-get install redis-server)"
            if os.environ.get("REQUIRE_REDIS") == "1":
                pytest.fail(missing)
            pytest.skip(missing)
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))  # short: a socket's path has about 100 characters
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = self._folder / "s"
        self.url = f"unix://{self.socket}"

    async def start(self, *options: str) -> None:
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
            [
                self._program, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no",
                "--dir", str(self._folder), "--loglevel", "warning", *options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        await until(self._answers, START_S)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server did not start"
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(1.0)
            probe.connect(str(self.socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def clear(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def command(self, *words: str) -> bytes:
        """Sends one command past the client and returns the raw answer's beginning."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5.0)
            connection.connect(str(self.socket))
            parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
            connection.sendall("".join(parts).encode())
            return connection.recv(65536)


async def until(true: Callable[[], Awaitable[bool]], within_s: float = UNTIL_S) -> None:
    async with asyncio.timeout(within_s):
        while not await true():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
