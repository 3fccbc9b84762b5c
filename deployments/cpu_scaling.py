"""How many replicas a stage has that is short of nothing but CPU: enough that none is busy for more than its share of time.

Serve pickles the policy by value and runs it in its controller, which knows nothing of this program: this module needs Serve
only.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ray.serve.config import AutoscalingContext

CPU_SHARE = "cpu_share"
"""What replicas tell Serve (``record_autoscaling_stats``): the part of the time that they were on a CPU."""
TARGET_SHARE = 0.6


def by_cpu(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many replicas as bring each to ``TARGET_SHARE``; where none has told of itself, as many as there are."""
    told = (ctx.aggregated_metrics or {}).get(CPU_SHARE) or {}
    if not told:
        return max(1, ctx.target_num_replicas), {}
    # Replicas that have not been heard yet are taken to be as busy as the others.
    return max(
        1, math.ceil(sum(told.values()) / len(told) * max(len(told), ctx.current_num_replicas) / TARGET_SHARE)
    ), {}


class CpuShare:
    """This process's share of a CPU since it was asked last."""

    def __init__(self) -> None:
        self._at, self._used_s = time.monotonic(), time.process_time()

    def stats(self) -> dict[str, float]:
        at, used_s = time.monotonic(), time.process_time()
        passed_s, spent_s = at - self._at, used_s - self._used_s
        self._at, self._used_s = at, used_s
        return {CPU_SHARE: spent_s / passed_s} if passed_s > 0 else {}
