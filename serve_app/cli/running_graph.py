"""What a running graph says about itself, read from ``/health`` and ``/ready``; shapes are checked, for it may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.cli.api import Api
from serve_app.errors import UpstreamFailed


class ServerView(Struct, frozen=True):
    """A tool server; ``tools`` counts them."""

    name: str
    state: str
    tools: int
    error: str | None = None
    quarantined: tuple[str, ...] = ()


class Dependency(Struct, frozen=True):
    state: str
    critical: bool = True
    error: str | None = None
    simulated: bool | None = None
    servers: tuple[ServerView, ...] | None = None


class RunningGraph(Struct, frozen=True):
    """``status`` is ready, degraded, unavailable or draining."""

    url: str
    status: str
    dependencies: dict[str, Dependency]

    @property
    def tool_servers(self) -> tuple[ServerView, ...]:
        tools = self.dependencies.get("tools")
        return (tools.servers or ()) if tools is not None else ()


def find_graph(url: str) -> RunningGraph:
    """The graph at ``url``. Raises UpstreamFailed where there is none, or something else answers."""
    api = Api(url)
    health = api.get("/health")
    if health.status != 200 or health.body.get("status") != "ok":
        raise UpstreamFailed(f"What answers at {url} is not a healthy Parley (it said {health.status}).")
    return _readiness(url, api.get("/ready").body)


def _readiness(url: str, body: Mapping[str, Any]) -> RunningGraph:
    try:
        return msgspec.convert({**body, "url": url}, RunningGraph)
    except msgspec.ValidationError as error:
        raise UpstreamFailed(f"What answers at {url} is not Parley; name the right address with --url.") from error
