"""The load test, for Locust: a scenario's users, its load, and a folder of figures.

    locust -f load_tests/locustfile.py --headless --host http://127.0.0.1:8000 --scenario steps --report out

Once a second a JSON object on standard output says how it goes; the last one how it ended. Exit codes: 0 done, or the knee was
found; 1 more failures than the scenario's objective allows; 2 the scenario cannot be used.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

from load_tests.locust_run import Leader, Worker, say, unreachable
from load_tests.options import add_options, read_options
from serve_app.errors import ConfigError

EXIT_FAILED = 1
EXIT_UNUSABLE = 2


class ScenarioUser(User):
    """What Locust looks for in this file; the scenario's own classes take its place."""

    @task
    def nothing(self) -> None:
        """Never run."""


class ScenarioShape(LoadTestShape):
    """The scenario's load."""

    abstract = False
    leader: Leader | None = None

    def tick(self) -> tuple[int, float] | None:
        return self.leader.tick() if self.leader is not None else None


def _init(environment: Environment, runner: Any, **_: Any) -> None:
    """Puts the scenario in the place of what Locust has found here."""
    # Standard output is for whoever reads how it goes; Locust's tables are not.
    logging.getLogger("locust.stats_logger").setLevel(logging.ERROR)
    parsed = environment.parsed_options
    if parsed is None or runner is None:
        return
    parsed.only_summary = True
    try:
        options = read_options(parsed)
        parsed.load_token = ""  # Locust's master sends its options to every worker, in the clear
        scenario = options.load()
        environment.host = options.host
        if isinstance(runner, WorkerRunner):
            Worker(environment, runner, scenario, options)
            return
        if (why := unreachable(options.host)) is not None:
            say(b'{"ended":"failed","why":%b}' % _quoted(why))
            sys.stderr.write(f"{why}\n")
            sys.exit(EXIT_FAILED)
        leader = Leader(environment, runner, scenario, options)
    except ConfigError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(EXIT_UNUSABLE)
    if isinstance(environment.shape_class, ScenarioShape):
        environment.shape_class.leader = leader


def _quoted(text: str) -> bytes:
    import msgspec

    return msgspec.json.encode(text)


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_init)  # type: ignore[no-untyped-call]
