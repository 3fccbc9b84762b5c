"""Processes killed at seeded moments, also inside a commit, on a disk that forgets what was not synced."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.simulators.storage.ledger import Ledger, check_all

ROOT = Path(__file__).resolve().parents[3]
BOUND_S = 60


async def run_until_dead(folder: Path, seed: int, death: str, ledger: Ledger) -> None:
    """Runs a busy store; one that does not die by itself is killed after a seeded number of acknowledgements."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.simulators.storage.busy_store", str(folder), str(seed), death),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(BOUND_S):
            if death in ("kill", "unsafe"):
                for _ in range(random.Random(seed).randint(1, 120)):
                    ledger.take(await process.stdout.readline())
                process.send_signal(signal.SIGKILL)
            while line := await process.stdout.readline():
                ledger.take(line)
            assert await process.wait() == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_acknowledged_is_lost_however_often_and_wherever_the_process_dies(
    tmp_path: Path, seed: int
) -> None:
    ledger = Ledger()
    for life, death in enumerate(["open", *random.Random(seed).sample(["write", "sync", "kill"], 3)]):
        await run_until_dead(tmp_path, 10 * seed + life, death, ledger)
        assert await check_all(tmp_path, ledger) == []
    assert len(ledger) > 3


async def test_the_same_death_loses_what_was_acknowledged_when_commits_are_not_synced(tmp_path: Path) -> None:
    """Or else the tests above would prove nothing."""
    ledger = Ledger()
    await run_until_dead(tmp_path, 5, "unsafe", ledger)
    assert await check_all(tmp_path, ledger) != []
