"""Runs a schedule in a world of its own, the same way each time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from serve_app.domain.usage import Usage
from tests.simulation.loop import SimLoop, StuckError
from tests.simulation.schedule import Schedule
from tests.simulation.world import Outcome, World


def simulate(schedule: Schedule) -> Outcome:
    """Runs a schedule. Raises Violation where an invariant does not hold; the same schedule does the same each time.

    Call it inside ``virtual_clocks``.
    """
    loop = SimLoop(schedule.seed)
    with _no_collection(), patch("serve_app.turns.spending.estimated", one_estimate):
        try:
            world: World | None = None

            async def main() -> None:
                nonlocal world
                world = World(schedule, loop)
                await world.run()

            try:
                loop.run_until_complete(main())
            except StuckError as error:
                if world is not None and world.verdict.violation is None:
                    world.verdict.fail("the simulation ends", str(error))
            assert world is not None
            if world.verdict.violation is not None:
                raise world.verdict.violation
            return world.outcome()
        finally:
            _bury(loop, world)


def one_estimate(*_: object) -> Usage:
    """Stands for any estimate, so that those there are can be counted and told from what a model has counted."""
    return Usage(reasoning_tokens=1, estimated=True)


def _bury(loop: SimLoop, world: World | None) -> None:
    """Ends every task, those of killed processes too."""
    loop.steps = 0
    loop.set_exception_handler(lambda _loop, _context: None)
    for process in world.processes if world is not None else ():
        process.bury()
    tasks = asyncio.all_tasks(loop)
    for task in sorted(tasks, key=hash):
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=600))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@contextmanager
def _no_collection() -> Iterator[None]:
    """The collector would end abandoned generators at moments that differ from run to run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
