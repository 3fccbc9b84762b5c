"""Logs and metrics: what the program says about itself, and how the pieces of one request are told to belong together.

Logs are structlog events with a ``request_id`` bound once at the edge and carried in every call to the store. Metrics go
through a small port, so that stages count without knowing Ray; ``deployments.metrics`` exports them at Ray's endpoint.
Nothing is logged or counted per token.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Protocol

import structlog

from serve_app.redaction import HIDDEN, is_secret, redacted, scrub, scrub_standard_logging
from serve_app.settings import LogSettings

# name → (kind, description, label names); buckets are milliseconds.
METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "parley_turns_total": ("counter", "Turns that ended, by outcome.", ("outcome",)),
    "parley_turns_running": ("gauge", "Turns this replica runs now.", ()),
    "parley_turn_ms": ("histogram", "From acceptance to the terminal event.", ("outcome",)),
    "parley_first_delta_ms": ("histogram", "From acceptance to the first text shown.", ()),
    "parley_tokens_total": ("counter", "Tokens as the provider counted them.", ("direction", "model")),
    "parley_cost_usd_total": ("counter", "What model calls cost, at the prices of the models file.", ("model",)),
    "parley_answer_cache_total": ("counter", "Model calls at the cache of answers, by outcome.", ("outcome",)),
    "parley_model_calls_total": ("counter", "Calls to a provider, by outcome.", ("model", "outcome")),
    "parley_model_retries_total": (
        "counter",
        "Further attempts at calls that failed before their first piece.",
        ("model",),
    ),
    "parley_model_hedges_total": (
        "counter",
        "Second requests beside slow ones, by which was first.",
        ("model", "outcome"),
    ),
    "parley_model_fallbacks_total": ("counter", "Answers of another model than was asked.", ("model", "to", "reason")),
    "parley_breaker_open": ("gauge", "Providers and models that are not called since they fail.", ("endpoint",)),
    "parley_model_first_delta_ms": ("histogram", "From a model call to its first piece of text.", ("model",)),
    "parley_provider_quota_limit": ("gauge", "What a provider gives in a minute.", ("endpoint", "kind")),
    "parley_provider_quota_used": ("gauge", "What was used of it, or is leased.", ("endpoint", "kind")),
    "parley_provider_quota_waiting": ("gauge", "Calls of this replica in line for it.", ("endpoint", "priority")),
    "parley_model_replicas_useful": ("gauge", "Replicas of the gateway that the providers' quotas can feed.", ()),
    "parley_tool_calls_total": ("counter", "Tool calls, by tool and outcome.", ("tool", "outcome")),
    "parley_tool_ms": ("histogram", "Duration of tool calls.", ("tool",)),
    "parley_stage_ms": ("histogram", "Time a turn spent in a stage.", ("stage",)),
    "parley_stage_calls_total": ("counter", "Calls of a stage; those that run are among them.", ("stage",)),
    "parley_stage_failures_total": ("counter", "Calls that ended with a failure of the stage's own.", ("stage",)),
    "parley_stage_busy_seconds_total": ("counter", "Durations of a stage's calls, added up.", ("stage",)),
    "parley_stage_ongoing": ("gauge", "Calls that a replica is at work on.", ("stage",)),
    "parley_stage_slots": ("gauge", "Calls that a replica takes at a time.", ("stage",)),
    "parley_stage_queued": ("gauge", "Calls that wait inside a replica.", ("stage",)),
    "parley_stage_cpu_seconds_total": ("counter", "CPU time of a replica's process.", ("stage",)),
    "parley_stage_loop_cpu_seconds_total": ("counter", "CPU time of the thread of its event loop.", ("stage",)),
    "parley_stage_loop_lag_ms": (
        "gauge",
        "The longest that its event loop came late, of the last seconds.",
        ("stage",),
    ),
    "parley_stage_memory_bytes": ("gauge", "Memory that a replica's process holds.", ("stage",)),
    "parley_stage_asked_total": ("counter", "Calls that a replica has asked of a stage.", ("stage",)),
    "parley_stage_asked_seconds_total": (
        "counter",
        "Times until they were answered, added up: what the stage's own time lacks of it was spent in line.",
        ("stage",),
    ),
    "parley_store_writer_seconds_total": ("counter", "Time that the store's one writer has worked.", ("stage",)),
    "parley_append_ms": ("histogram", "Duration of an append to the turn log.", ()),
    "parley_append_turns": ("histogram", "Turns that shared one append.", ()),
    "parley_store_queue": ("gauge", "Writes waiting for the store's writer.", ()),
    "parley_store_request_units_total": (
        "counter",
        "Request units that Cosmos DB charged, by operation.",
        ("operation",),
    ),
    "parley_store_call_ms": ("histogram", "Duration of calls to Cosmos DB, by operation.", ("operation",)),
    "parley_connections": ("gauge", "Open WebSocket connections of this replica.", ()),
    "parley_http_requests_total": ("counter", "HTTP requests, by route and status.", ("route", "status")),
    "parley_shadow_total": ("counter", "Live turns chosen to be mirrored, by what came of it.", ("outcome",)),
    "parley_refusals_total": ("counter", "Turns and requests refused by a limit, by code.", ("code",)),
    "parley_approvals_total": ("counter", "Questions about tool calls, by how they ended.", ("outcome",)),
    "parley_tools_quarantined": ("gauge", "Tools that changed since they were pinned.", ("server",)),
    "parley_tool_servers_up": ("gauge", "1 while a tool server is connected.", ("server",)),
}
BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000)


class Metrics(Protocol):
    """Counts, sets and observes by the names in ``METRICS``. Raises KeyError for any other name."""

    def count(self, name: str, value: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...


class MemoryMetrics:
    """Keeps everything in dictionaries: for tests and for runs without Ray. Bounded: only the last 1000 observations."""

    def __init__(self) -> None:
        self.counts: MutableMapping[tuple[str, ...], float] = defaultdict(float)
        self.gauges: MutableMapping[tuple[str, ...], float] = {}
        self.observations: MutableMapping[tuple[str, ...], list[float]] = defaultdict(list)

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        self.counts[self._key(name, labels)] += value

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[self._key(name, labels)] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        kept = self.observations[self._key(name, labels)]
        kept.append(value)
        del kept[:-1000]

    @staticmethod
    def _key(name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        return (name, *(labels[label] for label in METRICS[name][2]))


def configure_logging(settings: LogSettings, folder: Path | None = None, name: str = "parley") -> None:
    """Sets up structlog for this process: to ``folder/name.log``, or to standard error. Safe to call again."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    if folder is None:
        # The true standard error: Serve puts its own log in place of ``sys.stderr``.
        handler: logging.Handler = logging.StreamHandler(sys.__stderr__)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            folder / f"{name}.log", maxBytes=settings.file_bytes, backupCount=3, encoding="utf-8", delay=True
        )
    handler.setFormatter(logging.Formatter("%(message)s"))
    lines = _Lines(handler)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=folder is None and sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.ExceptionRenderer(_traceback),
            renderer,
            _scrub,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,  # loggers made at import must follow when a process is configured
    )
    scrub_standard_logging()
    # Vendors' request logs repeat URLs with every call; ours say what matters.
    for noisy in ("httpx2", "httpcore2", "openai", "mcp", "uvicorn.access", "asyncio", "azure"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Lines:
    """Writes finished lines to a handler. No logger of the standard library stands between: Serve reconfigures those."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

    def msg(self, line: str) -> None:
        self._handler.handle(logging.makeLogRecord({"msg": line}))

    debug = info = warning = error = critical = exception = log = msg


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names its part of the program."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return bound


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    # Not structlog's own, which prints it to a buffer: Ray replaces ``print`` in its workers.
    return "".join(traceback.format_exception(*exc_info))


def _redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = HIDDEN if is_secret(key) else redacted(value) if isinstance(value, (dict, list, tuple)) else value
    return event


def _scrub(_: object, __: str, line: Any) -> str:
    """Last of all: an exception's words, or a value in a sentence, have no key."""
    return scrub(line)
