"""Every replica asked how it does, at once: a stage's handle reaches all that serve.

    read ─► a gathering that is under way, or one of the last half second ─ else ─► asked anew ─► GraphState

Who does not answer in time is told as missing; the others' answers are there all the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from deployments.handles import Handle
from deployments.stage_report import StageReport, unpack_report
from serve_app.domain.stages import GraphState, NodeState, QuotaState
from serve_app.telemetry import logger

ANSWER_S = 2.0
"""How long replicas may take to answer."""
SHARED_S = 0.5
"""Whoever asks within this time of another gets the same."""

log = logger("graph_state")


class GraphReader:
    """``stages`` by their deployments' names; a handle of one's own stage is among them."""

    def __init__(self, stages: Mapping[str, Handle]) -> None:
        self._stages = dict(stages)
        self._gathering: asyncio.Task[GraphState] | None = None
        self._began_at = float("-inf")

    async def read(self) -> GraphState:
        """How the graph does now. Takes at most ``ANSWER_S``."""
        now = time.monotonic()
        if self._gathering is None or (self._gathering.done() and now - self._began_at >= SHARED_S):
            self._began_at = now
            # A fresh context, and shielded: others wait for the same answer.
            self._gathering = asyncio.create_task(self._gather(), context=contextvars.Context())
        return await asyncio.shield(self._gathering)

    async def _gather(self) -> GraphState:
        until = time.monotonic() + ANSWER_S
        told = await asyncio.gather(*(self._ask(stage, handle, until) for stage, handle in self._stages.items()))
        reports = [report for of_stage, _ in told for report in of_stage]
        missing = (stage for stage, (_, whole) in zip(self._stages, told, strict=True) if not whole)
        return GraphState(
            at=time.time(),
            replicas=tuple(report.replica for report in reports),
            nodes=_nodes(reports),
            quotas=_quotas(reports),
            missing=tuple(missing),
        )

    async def _ask(self, stage: str, handle: Handle, until: float) -> tuple[list[StageReport], bool]:
        """What the replicas said, and whether all of them did."""
        asking: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(until - time.monotonic()):
                # Serve's own way of waiting for all gives up every answer where one is late (``results_async``).
                sent = await handle.broadcast("stage_state")._fetch_replica_results_async()
                asking = [asyncio.ensure_future(one.get_async()) for one in sent]  # type: ignore[no-untyped-call]
                await asyncio.wait(asking)
        except TimeoutError:
            log.warning("replicas_silent", stage=stage, answered=sum(one.done() for one in asking), asked=len(asking))
        except (
            Exception
        ) as error:  # no replica at the moment, or one that died: nothing else of this graph is worse for it
            log.warning("stage_silent", stage=stage, error=repr(error)[:200])
            return [], False
        reports = []
        for one in asking:
            if not one.done():
                one.cancel()
            elif not one.cancelled() and one.exception() is None:
                reports.append(_report(one.result()))
        read = [report for report in reports if report is not None]
        return read, 0 < len(asking) == len(read)


def _report(answer: Any) -> StageReport | None:
    """None for the answer of another version of this program, while it is being replaced."""
    try:
        return unpack_report(answer)
    except (msgspec.DecodeError, TypeError):
        return None


def _nodes(reports: list[StageReport]) -> tuple[NodeState, ...]:
    """Each machine once, as it was seen last."""
    latest: dict[str, NodeState] = {}
    for report in reports:
        known = latest.get(report.node.node)
        if known is None or report.node.at > known.at:
            latest[report.node.node] = report.node
    return tuple(latest[name] for name in sorted(latest))


def _quotas(reports: list[StageReport]) -> tuple[QuotaState, ...]:
    """Each quota once. Where several keep the same account, whoever has seen the most use of it is right."""
    most: dict[tuple[str, str], QuotaState] = {}
    for report in reports:
        for quota in report.quotas:
            known = most.get((quota.endpoint, quota.kind))
            if known is None or quota.used > known.used:
                most[quota.endpoint, quota.kind] = quota
    return tuple(most[key] for key in sorted(most))
