"""Attaches to a running graph as an evaluation does, runs trials, and prints what came of them as JSON lines.

python -m tests.e2e.trial_program DATA_DIR CASE=MODEL…      one after the other; an empty model is the default one
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from deployments.remote_trials import attached_graph
from serve_app.errors import ParleyError
from serve_app.settings import Settings
from serve_app.turns.trials import TrialEnd, TrialGraph
from tests.simulators.turns.trial import SALES, trial

TRIES = 60


def tell(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - what the test reads


async def end_of(graph: TrialGraph, case: str, model: str) -> tuple[TrialEnd, int]:
    """A trial's end, and how often it was asked for: as whoever evaluates asks, until there is one."""
    for asked in range(1, TRIES + 1):
        try:
            return await graph.run(trial(case, model or None, timeout_s=120)), asked
        except ParleyError as error:
            tell(refused=error.code, message=error.message)
            await asyncio.sleep(error.retry_after_s or 1.0)
    raise TimeoutError(case)


async def main(data_dir: Path, *cases: str) -> None:
    try:
        async with attached_graph(Settings(data_dir=data_dir)) as graph:
            tools = [spec.name for spec in (await graph.tools_for(SALES)).tools]
            catalog = await graph.catalog()
            tell(attached=True, prompts=await graph.prompts(), tools=tools, simulated=catalog.simulated)
            for case in cases:
                name, _, model = case.partition("=")
                end, asked = await end_of(graph, name, model)
                calls = [part for step in end.turn.steps for part in step.parts if hasattr(part, "arguments")]
                tell(
                    case=name, state=end.turn.state, prompt=end.prompt, text=end.message.text if end.message else "",
                    epoch=end.turn.epoch, steps=len(end.turn.steps), calls=len(calls), asked=asked,
                    failure=end.failure.code if end.failure else None,
                )  # fmt: skip
    except ParleyError as error:
        tell(failed=error.code, message=error.message)
    tell(left=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
