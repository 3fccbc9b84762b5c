"""What the load test is told on Locust's command line, beside Locust's own options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from serve_app.capacity.scenario import Scenario, find_scenario, load_scenario

TOKEN_VARIABLE = "PARLEY_LOAD_TOKEN"  # noqa: S105 - a name


class Options(Struct, frozen=True):
    """``tokens``: who users are, where the graph does not take their word for it; several are taken in turn."""

    host: str
    scenario: str
    report: Path | None
    seed: int | None
    users_max: int | None
    tenant: str | None
    tokens: tuple[str, ...] = ()

    def load(self) -> Scenario:
        """The scenario as it is run. Raises ConfigError."""
        scenario = load_scenario(find_scenario(self.scenario))
        if self.users_max is not None:
            load = scenario.load.model_copy(update={"users_max": self.users_max})
            scenario = scenario.model_copy(update={"load": load})
        return scenario if self.seed is None else scenario.model_copy(update={"seed": self.seed})


def add_options(parser: Any) -> None:
    """For Locust's ``init_command_line_parser``."""
    parser.add_argument(
        "--scenario", default="smoke", help="A scenario file, or the name of one that comes with Parley"
    )
    parser.add_argument("--report", default="", help="A folder for the figures; without it nothing is written")
    parser.add_argument("--seed", type=int, default=None, help="Instead of the scenario's; the same seed asks the same")
    parser.add_argument(
        "--users-max", type=int, default=None, help="Open arrivals: turns under way at most, over all processes"
    )
    parser.add_argument("--dev-tenant", default="", help="The tenant of development users")
    parser.add_argument(
        "--load-token", env_var=TOKEN_VARIABLE, default="", is_secret=True,
        help="Bearer tokens, separated by commas, that users show in turn; none: development users",
    )  # fmt: skip


def read_options(parsed: Any) -> Options:
    tokens = tuple(filter(None, (token.strip() for token in parsed.load_token.split(","))))
    return Options(
        host=parsed.host or "http://127.0.0.1:8000",
        scenario=parsed.scenario,
        report=Path(parsed.report) if parsed.report else None,
        seed=parsed.seed,
        users_max=parsed.users_max,
        tenant=parsed.dev_tenant or None,
        tokens=tokens,
    )
