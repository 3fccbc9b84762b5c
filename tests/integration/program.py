"""Runs every scenario on a Ray of its own and prints what came of each, as JSON lines.

A process of its own, because Ray reads its settings from the environment when it is imported: this one gets those of a
development graph, so that replicas call each other as they do there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from serve_app import errors

APPEARS_WITHIN_S = 60.0


async def appears(path: Path) -> bool:
    """Whether the file is there within a minute."""
    until = time.monotonic() + APPEARS_WITHIN_S
    while not await asyncio.to_thread(path.exists):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    return True


def tell(name: str, value: Any) -> None:
    sys.stdout.write("RESULT " + msgspec.json.encode([name, value]).decode() + "\n")
    sys.stdout.flush()


async def healthy(caller: Any, client: Any) -> int:
    """The callee's pid, once it answers the caller again."""
    until = time.monotonic() + APPEARS_WITHIN_S
    while time.monotonic() < until:
        outcome = await caller.call.remote("pid", (), 5.0)
        if outcome.error is None:
            return pids(client)["Callee"]
        await asyncio.sleep(0.3)
    raise TimeoutError("the callee did not come back")


def pids(client: Any) -> dict[str, int]:
    """Process of each deployment's replica."""
    stages = client.get_serve_details()["applications"]["scenarios"]["deployments"]
    return {name: stage["replicas"][0]["pid"] for name, stage in stages.items() if stage["replicas"]}


async def scenarios(caller: Any, client: Any, folder: Path) -> None:
    for name in errors.__all__:
        tell(f"error {name}", await caller.call.remote("fail", (name,), 10.0))
    tell("crash", await caller.call.remote("crash", (), 10.0))
    tell("own timeout", await caller.call.remote("time_out", (), 10.0))
    tell("late", await caller.call.remote("sleep", (30.0,), 0.5))
    tell("late: the callee is told", await appears(folder / "sleep-cancelled"))
    for what in ("whole", "lost tail", "gap", "stranger", "fail"):
        tell(f"generate {what}", await caller.generate.remote(what))

    tell("generate die", await caller.generate.remote("die"))
    tell("unreachable", await caller.call.remote("pid", (), 1.0))
    pid = await healthy(caller, client)

    tool = asyncio.ensure_future(_awaited(caller.tool.remote(40.0)))
    tell("tool running", await appears(folder / "tool-running"))
    os.kill(pid, signal.SIGKILL)
    tell("tool killed", await tool)
    await healthy(caller, client)

    await caller.start_turn.remote("one")
    tell("turn one finished", await appears(folder / "finished-one"))
    await caller.start_turn.remote("two")
    tell("turn two started", await appears(folder / "started-two"))
    os.kill(pids(client)["Caller"], signal.SIGKILL)
    tell("turn two finished", await appears(folder / "finished-two"))
    tell("turns cancelled", await asyncio.to_thread(lambda: [path.name for path in folder.glob("cancelled-*")]))


async def _awaited(response: Any) -> Any:
    return await response


def main() -> None:
    """Takes the run folder as its only argument."""
    import ray
    from ray import serve
    from ray.serve._private.api import serve_start

    from tests.integration.stages import Callee, Caller

    run_dir = Path(sys.argv[1])
    folder = run_dir / "files"
    folder.mkdir()
    ray.init(
        address="local", namespace="serve", include_dashboard=False, num_cpus=4, _temp_dir=str(run_dir),
        object_store_memory=100 * 2**20, log_to_driver=False, logging_level=logging.WARNING,
    )  # fmt: skip
    client = serve_start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, proxy_location="HeadOnly")
    options = {"graceful_shutdown_timeout_s": 1, "graceful_shutdown_wait_loop_s": 0.1}
    bound: Any = Caller.options(**options).bind(Callee.options(**options).bind(str(folder)))  # type: ignore[attr-defined]
    caller = serve.run(bound, name="scenarios", route_prefix=None)
    caller._init(_run_router_in_separate_loop=True)  # type: ignore[no-untyped-call]
    asyncio.run(scenarios(caller, client, folder))
    tell("end", None)


if __name__ == "__main__":
    main()
