"""Runs the graph's driver as a child and answers for every process that comes of it.

    parley serve (this: signals and console, no Ray) ──► driver ──► Ray's processes, replicas, HAProxy

This process makes itself the reaper of its descendants' orphans, so its descendants are exactly what has to be gone before
it ends; nothing is found by name. An orderly stop is asked of the driver; whatever is left when its time is up is killed.
If this process itself is killed, the kernel ends the driver, and the rest follows it.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 9.0
"""Orderly part of a stop; killing and reaping take well below a second more."""
KILL_TIMEOUT_S = 5.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REDEPLOY_SIGNAL = signal.SIGUSR2

OnLine = Callable[[dict[str, Any]], None]
"""Takes what the driver tells (``phase``, ``stages``, ``ready``, ``failed``, ``redeployed`` or ``redeploy_failed``), or
``crashed`` where it died."""


class Supervisor:
    """Starts one driver and returns its exit code from :meth:`run`. Use it in the main thread, once."""

    def __init__(
        self, options: Mapping[str, Any], environment: Mapping[str, str], output: BinaryIO, on_line: OnLine
    ) -> None:
        """``output`` takes what the driver and Ray print."""
        self._output = output
        self._options = dict(options)
        self._environment = dict(environment)
        self._on_line = on_line
        self._ready = False
        self._failed = False
        self._stopping = False
        self._deadline: float | None = None

    def run(self) -> int:
        """0 after an orderly stop, 2 when the graph could not start, 1 when it died, 130 when stopped while starting."""
        _adopt_orphans()
        signals = _signal_pipe()
        told, tell = os.pipe()
        child = subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
            [sys.executable, "-m", "deployments.driver", json.dumps({**self._options, "tell_fd": tell})],
            env={**_inherited(), **self._environment},
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[tell],
            start_new_session=True,  # the terminal's Ctrl-C is for us to pass on
        )
        os.close(tell)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(signals, selectors.EVENT_READ)
                selector.register(told, selectors.EVENT_READ)
                return self._watch(child, selector, signals, told)
        finally:
            end_descendants()
            os.close(told)

    def _watch(self, child: subprocess.Popen[bytes], selector: selectors.BaseSelector, signals: int, told: int) -> int:
        rest = b""
        while True:
            timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            for key, _ in selector.select(timeout):
                if key.fd == signals:
                    numbers = os.read(signals, 256)
                    if any(number in STOP_SIGNALS for number in numbers):
                        self._stop(child)
                    elif REDEPLOY_SIGNAL in numbers:
                        self._redeploy(child)
                    continue
                chunk = os.read(told, 65536)
                if not chunk:
                    selector.unregister(told)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
            if child.poll() is not None:
                self._hear_rest(told, rest)
                return self._code(child.returncode)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return 0 if self._ready else 130

    def _hear_rest(self, told: int, rest: bytes) -> None:
        """What the driver told just before it ended, as why it could not start, may not have been read yet."""
        os.set_blocking(told, False)  # a process it left behind may hold the other end
        try:
            while chunk := os.read(told, 65536):
                rest += chunk
        except BlockingIOError:
            pass
        for line in rest.split(b"\n")[:-1]:
            self._hear(json.loads(line))

    def _hear(self, line: dict[str, Any]) -> None:
        self._ready = self._ready or "ready" in line
        self._failed = self._failed or "failed" in line
        self._on_line(line)

    def _stop(self, child: subprocess.Popen[bytes]) -> None:
        """Asks for an orderly end; at once where nothing runs yet that could be lost, or where it is asked for again."""
        now = time.monotonic()
        if self._stopping or not self._ready or child.stdin is None:
            self._deadline = now
        else:
            self._deadline = now + GRACE_S
            try:
                child.stdin.write(b"stop\n")
                child.stdin.flush()
            except OSError:
                self._deadline = now
        if not self._stopping:
            self._stopping = True
            self._on_line({"phase": "stopping"})

    def _redeploy(self, child: subprocess.Popen[bytes]) -> None:
        """Asks the driver for it; while it starts, or stops, there is nothing to replace."""
        if self._stopping or not self._ready or child.stdin is None:
            return
        self._on_line({"phase": "redeploying"})
        try:
            child.stdin.write(b"redeploy\n")
            child.stdin.flush()
        except OSError:
            pass  # it is ending, which the loop sees

    def _code(self, returned: int) -> int:
        if self._failed:
            return 2
        if self._stopping:
            return 0 if self._ready else 130
        self._on_line({"crashed": f"The graph ended by itself (exit code {returned}); its logs say why."})
        return 1 if self._ready else 2


def end_descendants() -> int:
    """Kills every process below this one and waits until none is left. Returns how many it had to kill."""
    killed = 0
    until = time.monotonic() + KILL_TIMEOUT_S
    while time.monotonic() < until:
        left = [process for process in psutil.Process().children(recursive=True) if _alive(process)]
        for process in left:
            try:
                process.kill()
                killed += 1
            except psutil.NoSuchProcess:
                continue
        _reap()
        if not left:
            break
        time.sleep(0.02)
    return killed


def run_folder() -> Path:
    """A private, short folder for the run's sockets and logs: Unix socket names end at 107 bytes."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="parley-", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108


def _inherited() -> dict[str, str]:
    """Our environment, less what would slow every process of the graph's start down: compiling Ray anew, each of them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _adopt_orphans() -> None:
    # Without it (other systems than Linux) a killed Ray process could leave children that are nobody's.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _signal_pipe() -> int:
    """A descriptor that becomes readable with each signal's number; set up before anything is started."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (*STOP_SIGNALS, REDEPLOY_SIGNAL, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return read
