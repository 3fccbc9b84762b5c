"""The simulated provider and tool servers alone, beside a graph that somebody else started and pointed at them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from serve_app.cli.api import Api
from serve_app.cli.child import end, environment, start_python
from serve_app.errors import ConfigError, UpstreamFailed

START_TIMEOUT_S = 30.0
STOP_GRACE_S = 8.0
POLL_S = 0.1
_OUTSIDE = re.compile("PARLEY_.*")


@contextlib.contextmanager
def started_simulators(port: int) -> Iterator[str]:
    """Yields their address, whose ``/v1`` is the model's; ends them whatever happens. Raises ConfigError where they cannot
    start, as on a port that is taken.
    """
    url = f"http://127.0.0.1:{port}"
    variables = environment(_OUTSIDE, {})
    with tempfile.TemporaryFile() as output:
        arguments = ["-m", "serve_app.companions", "--port", str(port)]
        process = start_python(arguments, Path.cwd(), variables, output, subprocess.STDOUT)
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    output.seek(0)
                    said = output.read(4_096).decode(errors="replace").strip()
                    raise ConfigError(f"The simulators did not start. {said}")
                time.sleep(POLL_S)
            yield url
        finally:
            end(process, STOP_GRACE_S)


def _answers(url: str) -> bool:
    try:
        return Api(url).get("/health").status == 200
    except UpstreamFailed:
        return False
