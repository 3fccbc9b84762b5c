"""What all tests share: how they log, and how patient generated ones are with a slow machine."""

from __future__ import annotations

import structlog
from hypothesis import HealthCheck, settings

# By itself structlog draws every local of a traceback, which takes seconds on a busy machine and stops the event loop meanwhile.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
