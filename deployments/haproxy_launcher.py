"""Stands in for the HAProxy binary, narrows where it listens, and becomes it.

Serve's template binds its metrics and statistics ports on every interface and has no setting for it
(``serve/_private/haproxy_templates.py`` in Ray 2.60). Serve does let one name the binary, so this is what it starts: those
binds of the generated file are rewritten to ``HAPROXY_LAUNCHER_BIND``, the kernel is asked to end HAProxy when the process
that manages it ends (else it stays behind, holding its ports), and then this process turns into HAProxy, keeping its pid.
While no replica of the ingress is known, as in the first seconds of a new HAProxy, the template answers every path with 404,
which says that a conversation is gone; here it is 503, which says to come back.

Run with ``-I -S``: nothing but the standard library, and as little start-up time as possible.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
WILDCARD = re.compile(r"^(\s*bind )(?:\*|0\.0\.0\.0|::|\[::\])?:(\d+)")
NO_REPLICAS = re.compile(
    r'^(\s*http-request return) status 404 content-type text/plain lf-string "Path .*$', re.MULTILINE
)
COME_BACK = (
    r"\g<1> status 503 content-type application/problem+json hdr retry-after 1 string '"
    '{"type":"urn:parley:problem:overloaded","title":"Overloaded","status":503,"code":"overloaded",'
    '"detail":"The server is starting or being replaced; try again in a moment.","retryable":true,"request_id":""}\''
)
OPERATORS_CHOICE = "frontend http_frontend"
"""The one section whose address is a setting (``host``), wildcard or not."""


def narrowed(text: str, host: str) -> str:
    """A HAProxy configuration where only users' own way in may listen beyond ``host``, and sockets are their owner's.

    Without replicas it answers that it is not ready.
    """
    section = ""
    lines = []
    for line in text.splitlines(keepends=True):
        if not line[:1].isspace() and not line.startswith("#"):
            section = line.strip()
        lines.append(line if section == OPERATORS_CHOICE else WILDCARD.sub(rf"\g<1>{host}:\2", line))
    return NO_REPLICAS.sub(COME_BACK, "".join(lines)).replace("mode 666", "mode 600")


def main(arguments: list[str]) -> None:
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        text = path.read_text(encoding="utf-8")
        changed = narrowed(text, os.environ["HAPROXY_LAUNCHER_BIND"])
        if changed != text:
            # Replaced in one move: a reload may read the file at any moment.
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(changed, encoding="utf-8")
            temporary.replace(path)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before we had asked
            sys.exit(1)
    binary = os.environ["HAPROXY_LAUNCHER_BINARY"]
    os.execv(binary, [binary, *arguments])  # noqa: S606 - the operator's own Ray installation


if __name__ == "__main__":
    main(sys.argv[1:])
