"""How many replicas a stage has: as many as the scarcest of what its work needs asks for.

Serve's own policy counts calls. That misjudges an ingress (a thousand idle sockets cost little, a thousand short requests a
core), turns that wait for their users, calls that come on the channel, where Serve does not see them, and streams that only
wait in line for a provider's quota. ``ByNeed`` takes the most that any shortage asks: CPU of the replicas' processes (Python
runs one thread at a time, so this is what the event loop is short of), calls that are worked on, calls that are held.

Serve pickles the policy by value and runs it in its controller, which knows nothing of this program: this module needs Serve
only. Bounds and delays are Serve's, from ``autoscaling_config``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingContext

CPU_SHARE = "cpu_share"
"""What replicas tell Serve (``record_autoscaling_stats``): the part of the time that they were on a CPU."""
CALLS = "calls"
"""How many calls ran at once on average, in a stage whose calls Serve does not count."""
WAITING = "waiting"
"""How many of the calls that Serve counts only wait for a user."""
USEFUL_STREAMS = "useful_streams"
"""How many calls at once the providers' quotas feed."""

TOLERANCE = 0.1
"""A need this near to what there is asks for no change: it would be noise, and soon taken back."""
REMEMBERED = 30
"""Parts of ``downscale_delay_s`` of which the highest need is remembered."""
_RECENT = "recent_needs"
_POINT = 0.2
"""A replica's figure is of the time since the one before, a fifth of the look-back (Serve's
RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR)."""


class ByNeed:
    """A policy for ``autoscaling_config.policy``, with ``policy_kwargs``:

    ``cpu_share``: the part of the time that a replica shall be on a CPU; 0 where CPU is not looked at.
    ``count_ongoing``: whether ``target_ongoing_requests`` counts: calls that Serve sees, without those that wait for a user,
    and no more of them than the quotas feed.
    ``held``: how many calls a replica shall hold, those that wait included, below its ``max_ongoing_requests``; 0: no matter.
    ``calls``: how many calls that Serve does not see a replica shall have at once; 0: no matter.

    Replicas go down to the highest need of the last ``downscale_delay_s``, so that a lull at its end takes none that was needed.
    """

    def __init__(
        self, cpu_share: float = 0.6, count_ongoing: bool = True, held: float = 0.0, calls: float = 0.0
    ) -> None:
        self._cpu_share = cpu_share
        self._count_ongoing = count_ongoing
        self._held = held
        self._calls = calls

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Replicas wanted, and what is to be remembered."""
        there = ctx.target_num_replicas
        need = max(1, there) if ctx.current_num_replicas == 0 else self._need(ctx)
        recent, highest = _remember(ctx, need)
        if there < need <= there * (1 + TOLERANCE):
            return there, {_RECENT: recent}
        wanted = math.ceil(need - 1e-9)
        if there * (1 - TOLERANCE) < wanted < there:
            wanted = there
        elif wanted < there:
            # At least one less, so that Serve's delay runs; what is said at its end counts.
            wanted = min(there - 1, max(wanted, math.ceil(highest - 1e-9)))
        return max(1, wanted), {_RECENT: recent}

    def _need(self, ctx: AutoscalingContext) -> float:
        needs = [0.0]
        if self._cpu_share > 0:
            share = told_in_all(ctx, CPU_SHARE)
            # Without any news things stay as they are.
            needs.append(ctx.target_num_replicas if share is None else share / self._cpu_share)
        if self._count_ongoing and ctx.config is not None:
            working = max(0.0, ctx.total_num_requests - (told_in_all(ctx, WAITING) or 0.0))
            fed = useful_replicas(max(_told(ctx, USEFUL_STREAMS).values(), default=0.0), _target(ctx))
            asked = working / _target(ctx)
            # A replica that has seen few calls knows little of the quotas; one that has seen the longest is right.
            needs.append(asked if fed is None else min(asked, fed))
        if self._held > 0:
            needs.append(ctx.total_num_requests / self._held)
        if self._calls > 0:
            needs.append((told_in_all(ctx, CALLS) or 0.0) / self._calls)
        return max(needs)


def useful_replicas(streams: float, target_ongoing_requests: float) -> int | None:
    """The replicas that ``streams`` keep busy, at least one; None where there is no bound."""
    if streams <= 0 or target_ongoing_requests <= 0:
        return None
    return max(1, math.ceil(streams / target_ongoing_requests))


def told_in_all(ctx: AutoscalingContext, name: str) -> float | None:
    """The sum over the running replicas of what they told, a mean over the look-back; None where none has told.

    A replica that has run for a part of that time counts for that part: the others' means are still of the time when they did
    its work, and it would be counted twice.
    """
    told = _told(ctx, name)
    if not told:
        return None
    series: Mapping[Any, Any] = (ctx.raw_metrics or {}).get(name) or {}
    back_s = ctx.config.look_back_period_s if ctx.config is not None else 0.0
    total = 0.0
    for replica, mean in told.items():
        points = series.get(replica)
        known = 1.0
        if points and ctx.current_time is not None and back_s > 0:
            known = (ctx.current_time - points[0].timestamp) / back_s + _POINT
        total += mean * min(1.0, max(0.0, known))
    return total


def _told(ctx: AutoscalingContext, name: str) -> Mapping[Any, float]:
    return (ctx.aggregated_metrics or {}).get(name) or {}


def _target(ctx: AutoscalingContext) -> float:
    return float(ctx.config.get_target_ongoing_requests()) if ctx.config is not None else 1.0


def _remember(ctx: AutoscalingContext, need: float) -> tuple[list[tuple[int, float]], float]:
    """The highest need of each part of the last ``downscale_delay_s``, and the highest of all."""
    delay_s = float(ctx.config.downscale_delay_s) if ctx.config is not None else 0.0
    part_s = delay_s / REMEMBERED
    if part_s <= 0 or ctx.current_time is None:
        return [], need
    part = int(ctx.current_time // part_s)
    recent = [(at, most) for at, most in ctx.policy_state.get(_RECENT, ()) if part - REMEMBERED < at < part]
    same = max((most for at, most in ctx.policy_state.get(_RECENT, ()) if at == part), default=need)
    recent.append((part, max(need, same)))
    return recent, max(most for _, most in recent)
