"""What a replica says of itself, to whoever asks and to the metrics endpoint: the same figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import psutil
from msgspec import Struct

from deployments.asked import all_asked
from serve_app.domain.stages import NodeState, QuotaState, ReplicaState
from serve_app.machine import node_state
from serve_app.stage_load import LoopLag, StageLoad
from serve_app.telemetry import Metrics

EXPORT_S = 5.0
"""How often metrics are set; Ray asks for them every ten seconds."""


class Figures(Struct, frozen=True, kw_only=True):
    """What only some stages have. ``slots`` where it is not Serve that hands their calls in."""

    slots: int | None = None
    queued: int = 0
    writer_s: float = 0.0
    request_units: float = 0.0
    quotas: tuple[QuotaState, ...] = ()


class StageReport(Struct, frozen=True, kw_only=True):
    """A replica's answer: itself, the machine it runs on, and the quotas that it keeps."""

    replica: ReplicaState
    node: NodeState
    quotas: tuple[QuotaState, ...] = ()


class Replica(Struct, frozen=True, kw_only=True):
    """Which one it is. ``slots``: how many calls Serve lets in at a time."""

    stage: str
    replica: str
    node: str
    slots: int


class Reporter:
    """Makes the reports of one replica. Everything here runs on the stage's own event loop."""

    def __init__(self, who: Replica, load: StageLoad, metrics: Metrics, figures: Callable[[], Figures]) -> None:
        self._who = who
        self._load = load
        self._metrics = metrics
        self._figures = figures
        self._lag = LoopLag()
        self._process = psutil.Process()
        self._started_at = time.time()
        self._exported: dict[str, float] = {}

    def start(self) -> None:
        self._lag.start()

    def stop(self) -> None:
        self._lag.stop()

    def report(self) -> StageReport:
        figures = self._figures()
        return StageReport(
            replica=self._replica(figures, self._lag.recent_ms), node=node_state(self._who.node), quotas=figures.quotas
        )

    def _replica(self, figures: Figures, loop_lag_ms: float) -> ReplicaState:
        who, load = self._who, self._load
        return ReplicaState(
            stage=who.stage,
            replica=who.replica,
            node=who.node,
            at=time.time(),
            started_at=self._started_at,
            ongoing=load.ongoing,
            slots=who.slots if figures.slots is None else figures.slots,
            calls=load.calls,
            failed=load.failed,
            busy_s=load.busy_s,
            loop_cpu_s=time.thread_time(),  # before the process's, of which it is a part
            cpu_s=time.process_time(),
            loop_lag_ms=loop_lag_ms,
            memory_bytes=self._process.memory_info().rss,
            queued=figures.queued,
            writer_s=figures.writer_s,
            request_units=figures.request_units,
            asked=all_asked(),
        )

    async def keep_exported(self) -> None:
        """Sets the metrics again and again, for as long as the replica runs."""
        while True:
            self.export()
            await asyncio.sleep(EXPORT_S)

    def export(self) -> None:
        state = self._replica(self._figures(), self._lag.taken_ms)
        metrics, stage, by = self._metrics, state.stage, self._grown_by
        metrics.count("parley_stage_calls_total", by("calls", state.calls), stage=stage)
        metrics.count("parley_stage_failures_total", by("failures", state.failed), stage=stage)
        metrics.count("parley_stage_busy_seconds_total", by("busy", state.busy_s), stage=stage)
        metrics.count("parley_stage_cpu_seconds_total", by("cpu", state.cpu_s), stage=stage)
        metrics.count("parley_stage_loop_cpu_seconds_total", by("loop", state.loop_cpu_s), stage=stage)
        metrics.gauge("parley_stage_ongoing", state.ongoing, stage=stage)
        metrics.gauge("parley_stage_slots", state.slots, stage=stage)
        metrics.gauge("parley_stage_queued", state.queued, stage=stage)
        metrics.gauge("parley_stage_loop_lag_ms", state.loop_lag_ms, stage=stage)
        metrics.gauge("parley_stage_memory_bytes", state.memory_bytes, stage=stage)
        if state.writer_s:  # the embedded store's
            metrics.count("parley_store_writer_seconds_total", by("writer", state.writer_s), stage=stage)
        for asked in state.asked:
            calls, seconds = by(f"asked {asked.stage}", asked.calls), by(f"waited {asked.stage}", asked.busy_s)
            metrics.count("parley_stage_asked_total", calls, stage=asked.stage)
            metrics.count("parley_stage_asked_seconds_total", seconds, stage=asked.stage)

    def _grown_by(self, what: str, value: float) -> float:
        """How much a counter has grown since it was exported last."""
        before = self._exported.get(what, 0.0)
        self._exported[what] = max(before, value)
        return self._exported[what] - before


_PACK = msgspec.msgpack.Encoder()
_REPORT: msgspec.msgpack.Decoder[StageReport] = msgspec.msgpack.Decoder(StageReport)


def pack_report(report: StageReport) -> bytes:
    return _PACK.encode(report)


def unpack_report(data: bytes) -> StageReport:
    """Raises msgspec.DecodeError."""
    return _REPORT.decode(data)
