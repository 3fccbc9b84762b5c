"""The end of SQLite's write-ahead log is torn off or garbled after a kill: what was stored before that is all there."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import conversation_key as key_of
from tests.contract.store_inputs import running
from tests.simulators.storage.ledger import Ledger, check_all, check_file

ROOT = Path(__file__).resolve().parents[3]
BOUND_S = 60
ACKNOWLEDGED = 40
HEADER, FRAME = 32, 24 + 4096
"""Bytes of the log's header, and of a page with its own, as SQLite's file format has them."""


class Killed:
    """What a killed process left: its folder, and each acknowledgement with the length of the log by then."""

    def __init__(self, folder: Path, lines: list[bytes]) -> None:
        self.folder = folder
        self.said: list[tuple[int, bytes]] = []
        for line in lines:
            size, _, acknowledged = line.partition(b" ")
            self.said.append((int(size), acknowledged))
        self.log_bytes = (folder / "parley.db-wal").stat().st_size

    def before(self, log_bytes: int) -> Ledger:
        return Ledger(line for size, line in self.said if size <= log_bytes)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    return asyncio.run(_run_and_kill(folder))


async def _run_and_kill(folder: Path) -> Killed:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.simulators.storage.logger_store", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    lines = []
    try:
        async with asyncio.timeout(BOUND_S):
            for _ in range(ACKNOWLEDGED):
                lines.append(await process.stdout.readline())
            process.kill()
            lines += [line async for line in process.stdout if line.endswith(b"\n")]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return Killed(folder, lines)


def cut(log: Path, at: int, _chance: random.Random) -> None:
    with log.open("r+b") as file:
        file.truncate(at)


def garble(log: Path, at: int, chance: random.Random) -> None:
    rest = log.stat().st_size - at
    with log.open("r+b") as file:
        file.seek(at)
        file.write(chance.randbytes(rest))


def blank(log: Path, at: int, _chance: random.Random) -> None:
    rest = log.stat().st_size - at
    with log.open("r+b") as file:
        file.seek(at)
        file.write(bytes(rest))


def flip_a_bit(log: Path, at: int, chance: random.Random) -> None:
    with log.open("r+b") as file:
        file.seek(at)
        (old,) = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ 1 << chance.randrange(8)]))


def offsets(log_bytes: int, chance: random.Random) -> list[int]:
    """Where to tear: at seams of the format and anywhere, but behind the schema, without which there is no store."""
    frames = (log_bytes - HEADER) // FRAME
    first = frames // 3
    seams = [HEADER + frame * FRAME for frame in (first, frames - 1, chance.randrange(first, frames))]
    inside = [seam + shift for seam in seams[:2] for shift in (1, 12, 24, 25, 2048, FRAME - 1)]
    return [*seams, *inside, *(chance.randrange(seams[0], log_bytes) for _ in range(3))]


@pytest.mark.parametrize("tear", [cut, garble, blank, flip_a_bit])
async def test_all_that_was_stored_before_the_torn_part_is_there(
    tmp_path: Path, killed: Killed, tear: Callable[[Path, int, random.Random], None]
) -> None:
    chance = random.Random(tear.__name__)
    kept = []
    for number, at in enumerate(offsets(killed.log_bytes, chance)):
        folder = tmp_path / str(number)
        shutil.copytree(killed.folder, folder)
        tear(folder / "parley.db-wal", at, chance)
        ledger = killed.before(at)
        assert await check_all(folder, ledger) == []
        kept.append(len(ledger))
    assert max(kept) > min(kept) >= 1


async def test_a_log_torn_to_nothing_leaves_a_store_that_works(tmp_path: Path, killed: Killed) -> None:
    for number, at in enumerate((0, 1, HEADER - 1, HEADER, HEADER + 100)):
        folder = tmp_path / str(number)
        shutil.copytree(killed.folder, folder)
        cut(folder / "parley.db-wal", at, random.Random(0))
        store = await SqliteStore.open(folder)
        await running(store, key_of("anew"))
        await store.close()
        check_file(folder)


async def test_a_log_left_whole_has_everything(tmp_path: Path, killed: Killed) -> None:
    shutil.copytree(killed.folder, tmp_path / "whole")
    ledger = killed.before(killed.log_bytes)
    assert len(killed.said) >= ACKNOWLEDGED
    assert await check_all(tmp_path / "whole", ledger) == []
