"""What the machine has, and how much of it is used: the container's share where there is one, else all of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import psutil

from serve_app.domain.stages import NodeState

CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own bounds (cgroup v2)."""


def node_state(node: str, cgroup: Path = CGROUP) -> NodeState:
    """The machine this process runs on, under the name ``node``."""
    cores, cpu_s = _cpu(cgroup)
    memory_bytes, used_bytes = _memory(cgroup)
    return NodeState(
        node=node, at=time.time(), cores=cores, cpu_s=cpu_s, memory_bytes=memory_bytes, memory_used_bytes=used_bytes
    )


def _cpu(cgroup: Path) -> tuple[int, float]:
    """Cores, a part of one counted as one, and what they have worked, in seconds."""
    quota = _words(cgroup / "cpu.max")
    used = _table(cgroup / "cpu.stat").get("usage_usec")
    if len(quota) == 2 and quota[0].isdigit() and used is not None:
        return max(1, math.ceil(int(quota[0]) / int(quota[1]))), used / 1e6
    spent = psutil.cpu_times()
    # ``user`` has in it what guests used; what was stolen was somebody else's work, and waiting is none.
    others = sum(getattr(spent, name, 0.0) for name in ("nice", "irq", "softirq"))
    return psutil.cpu_count() or 1, spent.user + spent.system + others


def _memory(cgroup: Path) -> tuple[int, int]:
    """Bytes there are, and those in use: what could be given back at once is not."""
    limit, current = _words(cgroup / "memory.max"), _words(cgroup / "memory.current")
    if limit and limit[0].isdigit() and current and current[0].isdigit():
        spare = _table(cgroup / "memory.stat").get("inactive_file", 0)
        return int(limit[0]), max(0, int(current[0]) - spare)
    memory = psutil.virtual_memory()
    return memory.total, memory.total - memory.available


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _table(path: Path) -> dict[str, int]:
    words = _words(path)
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}
