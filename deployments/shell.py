"""What every stage's replica does first: logs, metrics, its channel, and where its sockets listen."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import ray.util
from msgspec import Struct
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.binding import bind_replica_server
from deployments.metrics import ServeMetrics
from deployments.needs import Needs
from deployments.stage_report import Figures, Replica, Reporter, pack_report
from serve_app.channel.zeromq import ZeromqBounds, ZeromqChannel
from serve_app.credentials import Secrets, secret_values
from serve_app.domain.turns import Owner
from serve_app.redaction import hide
from serve_app.settings import Settings
from serve_app.stage_load import StageLoad
from serve_app.telemetry import configure_logging

EVERY_INTERFACE = "::"
"""Where Serve lets replicas listen for each other by itself."""


class StageContext(Struct, frozen=True):
    """Given to every deployment by the builder. ``channel_secret`` is the graph's own, made at each start."""

    settings: Settings
    channel_secret: str


class Shell:
    """Base of the deployments: opens what all of them need."""

    start: Callable[..., Awaitable[None]]
    """What a stage does once the base is up; it gets the handles the builder bound. The replica serves when it returns."""

    # Serve awaits an asynchronous constructor; Python's own type system knows no such thing.
    async def __init__(self, context: StageContext, **peers: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        settings = context.settings
        if settings.replica_host != EVERY_INTERFACE:
            bind_replica_server(settings.replica_host)
        configure_logging(settings.log, settings.log_folder, _log_name(type(self).__name__.removesuffix("Deployment")))
        hide(secret_values(Secrets.from_environment()))
        self.settings = settings
        self.metrics = ServeMetrics()
        self._gauges = asyncio.create_task(self.metrics.keep_gauges(), context=contextvars.Context())
        self._channel_secret = context.channel_secret
        self.load = StageLoad()
        self._needs = Needs(self.load)
        self._reporter = Reporter(_this_replica(), self.load, self.metrics, self.figures)
        await self.start(**peers)
        self._reporter.start()
        self._exports = asyncio.create_task(self._reporter.keep_exported(), context=contextvars.Context())
        _spare_collector()

    def figures(self) -> Figures:
        """What this stage has to say beside what every stage has. Asked from when it has started."""
        return Figures()

    async def stage_state(self) -> bytes:
        """What this replica is doing; see ``deployments.graph_state``."""
        return pack_report(self._reporter.report())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve's controller is told every few seconds; see ``deployments.autoscaling``."""
        return self._needs.told()

    async def open_channel(self, tick_ms: int | None = None, calls: int | None = None) -> ZeromqChannel:
        """This replica's channel, listening. ``tick_ms`` is for stages whose sends are batched already. ``calls``: how many are
        answered at a time.
        """
        settings = self.settings.channel
        if settings.bind_host == "node":
            settings = settings.model_copy(update={"bind_host": ray.util.get_node_ip_address()})  # type: ignore[no-untyped-call]
        if tick_ms is not None:
            settings = settings.model_copy(update={"tick_ms": tick_ms})
        bounds = ZeromqBounds() if calls is None else ZeromqBounds(calls=calls)
        channel = ZeromqChannel(settings, self._channel_secret, bounds)
        await channel.start()
        return channel


GC_THRESHOLDS = 20_000, 20, 50


def _spare_collector() -> None:
    """What a replica is made of stays: the collector need not look at it again and again. Younger objects are mostly freed by
    their reference counts, so it comes by less often than by default; it took a tenth of the time of a busy stage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _log_name(stage: str) -> str:
    """Replicas of a stage do not share a file: rotating it would lose the others' lines."""
    rank = serve.get_replica_context().rank.rank
    return stage if rank == 0 else f"{stage}-{rank}"


def _this_replica() -> Replica:
    mine = serve.get_replica_context()
    return Replica(
        stage=mine.deployment,
        replica=mine.replica_tag,
        node=ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
        slots=mine._deployment_config.max_ongoing_requests,
    )


def owner_of(channel: ZeromqChannel) -> Owner:
    """This replica as the owner of turns, by the id that Ray gives with the news of its death."""
    actor_id = ray.get_runtime_context().get_actor_id()
    return Owner(replica_id=str(actor_id), endpoint=channel.endpoint)


def own_handle() -> DeploymentHandle[Any]:
    """A handle of this replica's own stage."""
    mine = serve.get_replica_context()
    return serve.get_deployment_handle(mine.deployment, mine.app_name)
