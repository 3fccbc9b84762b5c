"""A load generator that makes no load: it says and writes what it is told to by ``FAKE_LOAD``, and takes Locust's place in tests.

It keeps what it was asked in ``asked.json``, in the report's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serve_app.capacity.run_folder import write_lines
from serve_app.capacity.samples import GENERATOR, PHASES, SESSIONS, TURNS, GeneratorSample, Phase, TurnSample

TURN_COUNT = 20


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201


def progress(elapsed_s: float) -> None:
    say(phase=1, name="constant", rate_per_s=2.0, users=3, elapsed_s=elapsed_s, total_s=30.0, due=12, done=11, good=10, failed=1,
        running=1, waiting=0, ttft_p95_ms=345.6, cpu_share=0.1)  # fmt: skip


def write(report: Path) -> None:
    began = time.time() - 12
    phases = [
        Phase(0, "warm-up", began, began + 2, rate_per_s=2.0, users=3, measured=False),
        Phase(1, "constant", began + 2, began + 12, rate_per_s=2.0, users=3),
    ]
    turns = [
        TurnSample("ws_chat", 1, began + 2 + n / 2, began + 2 + n / 2, 300.0 + n, 900.0 + n, (20.0,) * 10, 11)
        for n in range(TURN_COUNT)
    ]
    write_lines(report / PHASES, phases)
    write_lines(report / TURNS, turns)
    write_lines(report / SESSIONS, [])
    write_lines(report / GENERATOR, [GeneratorSample(began + n, 0.1, 3) for n in range(12)])


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--headless", action="store_true", required=True)
    for name in ("--host", "--scenario", "--report"):
        parser.add_argument(name, required=True)
    for name in ("--seed", "--processes", "--master-bind-port", "--master-port"):
        parser.add_argument(name, type=int)
    parser.add_argument("--dev-tenant")
    parser.add_argument("--master-bind-host")
    given = parser.parse_args()
    report = Path(given.report)
    kept = {"LOCUST_USERS", "PARLEY_LOAD_TOKEN"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    (report / "asked.json").write_text(json.dumps({**vars(given), "pid": os.getpid(), "environment": environment}))
    sys.exit(play(os.environ["FAKE_LOAD"], report))


def play(mode: str, report: Path) -> int:
    """The exit code."""
    match mode:
        case "done" | "knee":
            progress(1.0)
            print("This is no JSON.", flush=True)  # noqa: T201
            write(report)
            say(ended=mode, why="as told")
            return 0
        case "failures":
            write(report)
            say(ended="done")
            return 1
        case "unusable":
            sys.stderr.write("[usage]\nThe scenario is not to my liking, in line 3.\n")
            return 2
        case "unusable in the end":
            progress(1.0)
            write(report)
            sys.stderr.write("Something went wrong.\n")
            return 2
        case "crash":
            progress(1.0)
            sys.stderr.write("Traceback (most recent call last):\nMemoryError: no more\n")
            return 7
        case "crash at the end":
            say(ended="done")
            sys.stderr.write("OSError: no space left\n")
            return 7
        case "killed":
            progress(1.0)
            os.kill(os.getpid(), signal.SIGKILL)
        case "until interrupted":
            interrupted: list[int] = []
            signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
            progress(1.0)
            while not interrupted:
                signal.pause()
            write(report)
            say(ended="interrupted")
            return 0
        case "deaf":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "600"])
            (report / "child.pid").write_text(str(child.pid))
            progress(1.0)
            while True:
                signal.pause()
        case "silent":
            signal.pause()
    return 9


if __name__ == "__main__":
    main()
