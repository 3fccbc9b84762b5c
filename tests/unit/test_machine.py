"""The machine as it is: the whole of it, or the share of it that a container has."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from serve_app.machine import node_state


def test_a_machine_without_bounds_is_all_of_it(tmp_path: Path) -> None:
    before = node_state("n1", tmp_path)
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    after = node_state("n1", tmp_path)
    assert (before.node, before.cores) == ("n1", psutil.cpu_count())
    assert after.cpu_s - before.cpu_s > 0.05, "what was worked meanwhile is in it"
    assert after.cpu_s - before.cpu_s < (after.at - before.at + 0.1) * before.cores
    assert 0 < before.memory_used_bytes < before.memory_bytes == psutil.virtual_memory().total


def test_a_container_is_the_share_it_has(tmp_path: Path) -> None:
    for name, text in {
        "cpu.max": "150000 100000\n",
        "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
        "memory.max": "4000000\n",
        "memory.current": "3000000\n",
        "memory.stat": "anon 1000000\ninactive_file 1200000\n",
    }.items():
        (tmp_path / name).write_text(text)
    state = node_state("pod", tmp_path)
    assert (state.cores, state.cpu_s) == (2, 2.5)
    assert (state.memory_bytes, state.memory_used_bytes) == (4_000_000, 1_800_000)


@pytest.mark.parametrize("cpu_max", ["max 100000\n", "nonsense", ""])
def test_a_container_without_bounds_is_the_machine(tmp_path: Path, cpu_max: str) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max)
    (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1\n")
    state = node_state("pod", tmp_path)
    assert state.cores == psutil.cpu_count()
    assert state.memory_bytes == psutil.virtual_memory().total
    assert state.cpu_s > 1
