"""A command on a terminal of its own: what a person types, and what they see."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PROJECT = Path(__file__).parents[3]
DONE_S = 30.0
AGAIN_S = 2.0
"""A Ctrl-C between the prompt and readline's wait for keys is noticed with the next key only, as people know from Python."""
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")


class Terminal:
    """Runs ``parley`` with ``arguments``; use as a context manager."""

    def __init__(self, *arguments: str, folder: Path, columns: int = 100, rows: int = 30) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARLEY_", "COLUMNS"))}
        environment |= {"PYTHONPATH": str(PROJECT), "TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
        )  # fmt: skip
        os.close(slave)
        self._seen = ""
        self._raw = b""
        self.everything = b""
        """All bytes that came, escape sequences included."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DONE_S)
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> None:
        self.type("\x03")

    def press_ctrl_d(self) -> None:
        self.type("\x04")

    def press_ctrl_c_until(self, text: str) -> None:
        """At a prompt: presses, and presses again while nothing happens."""
        for _ in range(int(DONE_S / AGAIN_S)):
            self.press_ctrl_c()
            until = time.monotonic() + AGAIN_S
            while self._read(until - time.monotonic()):
                if text in self._seen:
                    self.wait_for(text)
                    return
        raise AssertionError(f"{text!r} was not shown; this was: {self._seen!r}")

    def wait_for(self, text: str) -> str:
        """What was shown up to ``text`` since the last such call; escape sequences are left out."""
        until = time.monotonic() + DONE_S
        while text not in self._seen:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown; this was: {self._seen!r}")
        before, _, self._seen = self._seen.partition(text)
        return before + text

    def exit_code(self) -> int:
        """Waits for the end; what is left to show can be read in ``rest``."""
        until = time.monotonic() + DONE_S
        while self._read(until - time.monotonic()):
            pass
        return self._process.wait(max(0.1, until - time.monotonic()))

    @property
    def rest(self) -> str:
        return self._seen

    def _read(self, timeout_s: float) -> bool:
        """False at the end of the output, or when time is up."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        if not ready:
            return False
        try:
            piece = os.read(self._master, 65_536)
        except OSError:  # the other side has closed
            return False
        self.everything += piece
        self._raw += piece
        head, escape, tail = self._raw.rpartition(b"\x1b")
        # A sequence may come in two pieces: its begin waits for the rest.
        whole = self._raw if not escape or _ESCAPES.match(f"\x1b{tail.decode(errors='replace')}") else head
        self._raw = self._raw[len(whole) :]
        self._seen += _ESCAPES.sub("", whole.decode(errors="replace"))
        return bool(piece)
