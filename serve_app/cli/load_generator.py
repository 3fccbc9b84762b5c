"""The process that makes the load: Locust with the users of ``load_tests``, started, listened to and ended.

It says how it goes once a second, as a JSON object on its standard output; everything else that it prints is kept beside the
figures, for when it fails.
"""

from __future__ import annotations

import importlib.util
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

import msgspec
from msgspec import Struct

from deployments.environment import free_ports
from serve_app.cli.child import end, environment, start_python
from serve_app.cli.interrupts import Interrupts
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT

LOG = "generator.log"
_OTHERS = re.compile("LOCUST_.*|PARLEY_LOAD_TOKEN")
"""What would configure Locust, and a token that is given where it is wanted."""
TOKEN_VARIABLE = "PARLEY_LOAD_TOKEN"  # noqa: S105 - a name
INTERRUPT_GRACE_S = 45.0
"""How long turns that run may go on after a Ctrl-C, before the generator is ended."""
SILENCE_S = 120.0
"""A generator that says nothing for so long is not going to."""
END_GRACE_S = 10.0
POLL_S = 0.2
MAX_LINE_BYTES = 65_536

EXIT_FAILURES = 1
EXIT_UNUSABLE = 2


class Progress(Struct, frozen=True):
    """One line of the generator: the phase, what was due in it, what of that has ended (``done``), well and in time (``good``)
    or not at all (``failed``); and at the end how the run ``ended``, and ``why`` where there is more to say.
    """

    phase: int = 0
    name: str = ""
    rate_per_s: float | None = None
    users: int = 0
    elapsed_s: float = 0.0
    total_s: float | None = None
    due: int = 0
    done: int = 0
    good: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    ttft_p95_ms: float | None = None
    cpu_share: float = 0.0
    ended: str = ""
    why: str = ""


class Ended(Struct, frozen=True):
    """How it came to an end: ``done``, ``knee``, ``interrupted`` or ``failed``; ``code`` is that of its process."""

    how: str
    code: int
    why: str = ""


class GeneratorOptions(Struct, frozen=True, kw_only=True):
    target: str
    scenario: Path
    report: Path
    seed: int
    processes: int = 1
    tenant: str | None = None
    token: str | None = None


OnProgress = Callable[[Progress], None]
Tell = Callable[[str], None]


def require_extra() -> None:
    """Raises ConfigError where what makes load and reports is not installed."""
    missing = [name for name in ("locust", "numpy", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"A load test needs {', '.join(missing)}: pip install 'parley[load]'.")


def program() -> list[str]:
    """What Python is started with: Locust and its file."""
    found = importlib.util.find_spec("load_tests")
    folder = Path(found.origin).parent if found is not None and found.origin else PROJECT_ROOT / "load_tests"
    return ["-m", "locust", "-f", str(folder / "locustfile.py")]


def arguments(options: GeneratorOptions) -> list[str]:
    """What follows the program."""
    chosen = ["--headless", "--host", options.target, "--scenario", str(options.scenario)]
    chosen += ["--report", str(options.report), "--seed", str(options.seed)]
    if options.processes > 1:
        # Locust's own master listens for everybody, on one port for all runs of a machine.
        (port,) = map(str, free_ports(1))
        chosen += ["--processes", str(options.processes), "--master-bind-host", "127.0.0.1"]
        chosen += ["--master-bind-port", port, "--master-port", port]
    if options.tenant is not None:
        chosen += ["--dev-tenant", options.tenant]
    return chosen


def generate(options: GeneratorOptions, on_progress: OnProgress, tell: Tell, interrupts: Interrupts) -> Ended:
    """Makes the load until the scenario is over. Raises ConfigError where the generator cannot use the scenario."""
    log = options.report / LOG
    with log.open("wb") as kept:
        shown = {TOKEN_VARIABLE: options.token} if options.token else {}
        process = start_python(
            [*program(), *arguments(options)], Path.cwd(), environment(_OTHERS, shown), subprocess.PIPE, kept.fileno()
        )
        listener = _Listener(process.stdout, kept)
        begun = False

        def progress(line: Progress) -> None:
            nonlocal begun
            begun = True
            on_progress(line)

        try:
            last = _listen(process, listener.lines, progress, tell, interrupts)
        finally:
            end(process, END_GRACE_S)
            listener.join()
    code = process.returncode
    if code == EXIT_UNUSABLE and not begun:
        raise ConfigError(f"The load generator cannot use the scenario: {_last_line(log)}")
    if last is None or code not in (0, EXIT_FAILURES):
        interrupted = interrupts.count > 0
        return Ended("interrupted" if interrupted else "failed", code, "" if interrupted else _last_line(log))
    return Ended(last.ended, code, last.why)


def _listen(
    process: subprocess.Popen[bytes],
    lines: queue.SimpleQueue[Progress | None],
    on_progress: OnProgress,
    tell: Tell,
    interrupts: Interrupts,
) -> Progress | None:
    """Until the generator closes its output; returns the line that says how it ended, if there is one."""
    last: Progress | None = None
    asked_until: float | None = None
    heard = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            if time.monotonic() - heard > SILENCE_S:
                tell(f"The load generator has said nothing for {SILENCE_S:g} s and is ended.")
                return None
        else:
            if line is None:
                return last
            heard = time.monotonic()
            if line.ended:
                last = line
            else:
                on_progress(line)
        if interrupts.count and asked_until is None:
            asked_until = time.monotonic() + INTERRUPT_GRACE_S
            tell(
                "Ending in order: running turns are waited for, and the report is written. Ctrl-C again does not wait."
            )
            process.send_signal(signal.SIGINT)
        if interrupts.count > 1 or (asked_until is not None and time.monotonic() > asked_until):
            end(process, 0.0)
            return last


class _Listener:
    """Reads what the generator prints, in a thread; ``lines`` ends with None."""

    def __init__(self, output: IO[bytes] | None, kept: BinaryIO) -> None:
        self._output = output
        self._kept = kept
        self.lines: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="generator-output", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(END_GRACE_S)

    def _read(self) -> None:
        decoder = msgspec.json.Decoder(Progress)
        try:
            while self._output is not None and (line := self._output.readline(MAX_LINE_BYTES)):
                try:
                    self.lines.put(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self._kept.write(line)
                    self._kept.flush()
        finally:
            self.lines.put(None)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:1_000] if lines else f"it said nothing; see {log}."
