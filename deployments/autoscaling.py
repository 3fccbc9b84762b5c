"""How many replicas of the model gateway there are: as many as its calls ask for, and no more than the providers' quotas feed.

More replicas than that would only wait in line for the same quota. Serve pickles the policy by value and runs it in its
controller, which knows nothing of this program: this module needs Serve only.
"""

from __future__ import annotations

import math
from typing import Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

USEFUL_STREAMS = "useful_streams"
"""What replicas tell Serve (``record_autoscaling_stats``): how many calls at once the quotas feed."""


def within_quota(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Serve's own decision, bounded by what the quotas feed. Where no replica tells of any, it is Serve's alone."""
    decision, state = replica_queue_length_autoscaling_policy(ctx)
    told = (ctx.aggregated_metrics or {}).get(USEFUL_STREAMS) or {}
    if not told or ctx.config is None:
        return decision, state
    # A replica that has seen few calls knows little; one that has seen the longest is right.
    most = useful_replicas(max(told.values()), ctx.config.get_target_ongoing_requests())
    return (decision if most is None else min(decision, most)), state


def useful_replicas(streams: float, target_ongoing_requests: float) -> int | None:
    """The replicas that ``streams`` keep busy, at least one; None where there is no bound."""
    if streams <= 0 or target_ongoing_requests <= 0:
        return None
    return max(1, math.ceil(streams / target_ongoing_requests))
