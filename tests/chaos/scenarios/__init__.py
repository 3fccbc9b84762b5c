"""What is broken, one module per scenario. Each has ``run(world) -> Outcome``; ``SCENARIOS`` is their order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.chaos.report import Outcome
from tests.chaos.scenarios import cuts, degraded, idempotency, kills, outage, redeploy, stall, stop, takeover
from tests.chaos.world import World

Scenario = Callable[[World], Awaitable[Outcome]]

SCENARIOS: dict[str, Scenario] = {
    "kills": kills.run,
    "takeover": takeover.run,
    "outage": outage.run,
    "degraded": degraded.run,
    "stall": stall.run,
    "cuts": cuts.run,
    "stop": stop.run,
    "redeploy": redeploy.run,
    "idempotency": idempotency.run,
}
