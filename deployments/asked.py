"""What this replica asks of other stages: how many calls, and how long until they were answered.

What the callee's own time lacks of that was spent in line and on the way. Counted are the calls that the callee counts, and no
others. There is one account in a process, as there is one replica in it.
"""

from __future__ import annotations

from serve_app.domain.stages import Asked
from serve_app.stage_load import StageLoad

_STAGES = {
    ("model gateway", "generate"): "ModelGateway",
    ("tool executor", "call"): "ToolExecutor",
    ("prompt builder", "answer"): "PromptBuilder",
    ("store", "invoke"): "Store",
}
"""Stages by their names in sentences and the methods that are counted: each stage has one that does its work."""
_BY_CHANNEL = {"prompt builder": "PromptBuilder", "store": "Store"}
_asked: dict[str, StageLoad] = {}


def asked_by_handle(stage: str, method: str) -> StageLoad | None:
    """Where calls of ``method`` are counted; None for those that are not. ``stage`` is its name in sentences."""
    name = _STAGES.get((stage, method))
    return None if name is None else asked_of(name)


def asked_by_channel(stage: str) -> StageLoad:
    """Where requests on the channel are counted."""
    return asked_of(_BY_CHANNEL.get(stage, stage))


def asked_of(stage: str) -> StageLoad:
    """Where calls of ``stage`` are counted, by the name of its deployment."""
    load = _asked.get(stage)
    if load is None:
        load = _asked[stage] = StageLoad()
    return load


def all_asked() -> tuple[Asked, ...]:
    return tuple(
        Asked(stage=stage, ongoing=load.ongoing, calls=load.calls, busy_s=load.busy_s)
        for stage, load in sorted(_asked.items())
    )
