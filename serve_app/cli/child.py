"""A process that a command starts and ends: by its own id, in order first, and with this process at the latest.

It has a session of its own, so that the terminal's Ctrl-C is for the command to pass on, in the order that loses nothing. Where
the command itself is killed, the kernel asks its children to end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from serve_app.settings import PROJECT_ROOT

KILL_TIMEOUT_S = 5.0

# Runs before the program, in its process: as many files as the system allows, for each connection is one, and the kernel's
# SIGTERM (1 is PR_SET_PDEATHSIG) when the parent ends.
_BEFORE = """
import ctypes, os, resource, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
except (OSError, ValueError):
    pass
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_python(
    arguments: Sequence[str],
    cwd: Path,
    variables: Mapping[str, str],
    output: IO[bytes] | int,
    errors: IO[bytes] | int,
) -> subprocess.Popen[bytes]:
    """Starts this interpreter with ``arguments``. Call it in a thread that lives as long as the child is to: the kernel counts
    the end of that thread as the parent's.
    """
    return subprocess.Popen(  # noqa: S603 - our own interpreter and modules
        [sys.executable, "-c", _BEFORE, str(os.getpid()), sys.executable, *arguments],
        cwd=cwd,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def environment(
    left_out: re.Pattern[str], changes: Mapping[str, str], *, in_front: Sequence[str] = ()
) -> dict[str, str]:
    """Ours without the variables that ``left_out`` matches, with ``changes``, and with this project importable.

    ``in_front`` are folders that Python is to look into before it.
    """
    inherited = {name: value for name, value in os.environ.items() if not left_out.fullmatch(name)}
    paths = [*in_front, str(PROJECT_ROOT), inherited.get("PYTHONPATH", "")]
    return inherited | dict(changes) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def end(process: subprocess.Popen[bytes], grace_s: float, number: signal.Signals = signal.SIGTERM) -> int:
    """Asks it to end, kills it when ``grace_s`` are over, and returns its exit code. A Ctrl-C meanwhile kills it at once."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            _kill(process)
        except KeyboardInterrupt:
            _kill(process)
            process.wait(KILL_TIMEOUT_S)
            raise
    return process.wait(KILL_TIMEOUT_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and what it has started in its session; it is not reaped yet, so the id is still its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
