"""Runs one trial in a graph of its own and is killed in the middle of its model call, as a runner may be at any moment.

python -m tests.simulators.turns.left_behind FOLDER MODEL
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from serve_app.credentials import Secrets
from serve_app.settings import Settings
from serve_app.turns.local_graph import local_trial_graph
from serve_app.turns.stage import TurnsStage
from tests.simulators.turns.trial import trial


async def main(folder: Path, model: str) -> None:
    async with local_trial_graph(Settings(), Secrets(), folder) as graph:
        stage: TurnsStage = graph._stage  # what runs there is nobody else's to know
        asking = asyncio.create_task(graph.run(trial("left", model)))
        while not any(log.last_seq > 1 for log in stage._writer.all):
            assert not asking.done(), asking.result()
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
