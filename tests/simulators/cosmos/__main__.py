"""A simulated account as a process of its own: `python -m tests.simulators.cosmos --port 8081`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal

from tests.simulators.cosmos.simulator import KEY, CosmosSimulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one, named in the ready line")
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--split-after", type=int, default=None, help="writes to a container until a range splits")
    parser.add_argument("--serverless", action="store_true")
    parser.add_argument("--scans", action="store_true", help="let filters without an index through")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    simulator = CosmosSimulator(
        key=options.key, strict=not options.scans, serverless=options.serverless, split_after=options.split_after
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await simulator.start(port=options.port)
    print(f"ready {simulator.endpoint} key {simulator.key}", flush=True)  # noqa: T201
    await stopped.wait()
    await simulator.stop()


main()
