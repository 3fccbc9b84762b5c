"""Runs a Supervisor over a scripted driver, in a process of its own: it takes signals and orphans for the whole process.

``python -m tests.unit.cli.supervisor_host <grace_s> <driver's source>`` prints what the supervisor hears, one JSON a line,
and last ``{"code": …, "children": […]}``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

import psutil

from serve_app.cli import supervisor

BEFORE = """
import json, os, signal, subprocess, sys, time
options = json.loads(sys.argv[1])
def tell(**line):
    os.write(options["tell_fd"], (json.dumps(line) + "\\n").encode())
"""


def main(grace_s: float, source: str) -> None:
    start = subprocess.Popen

    def scripted(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert arguments[1:3] == ["-m", "deployments.driver"]
        child: subprocess.Popen[bytes] = start([arguments[0], "-c", BEFORE + source, *arguments[3:]], **options)
        return child

    subprocess.Popen = scripted  # type: ignore[assignment, misc]
    supervisor.GRACE_S = grace_s

    def show(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)  # noqa: T201
        if line.get("phase") == "wait for my end":
            child = psutil.Process().children()[0]
            while child.status() != psutil.STATUS_ZOMBIE:
                pass

    with tempfile.TemporaryFile() as output:
        code = supervisor.Supervisor({"port": 1}, {"GIVEN": "yes"}, output, show).run()
        output.seek(0)
        said = output.read().decode()
    left = [process.pid for process in psutil.Process().children(recursive=True)]
    print(json.dumps({"code": code, "children": left, "output": said}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
