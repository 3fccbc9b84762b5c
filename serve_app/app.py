"""The graph as Serve asks for it: ``serve_config.yaml`` names ``serve_app.app:build``.

Replicas, limits and timeouts of every stage are in that file; which stage talks to which is in ``deployments.graph``.
"""

# No ``from __future__ import annotations``: Serve reads the builder's annotation to make ``BuildArgs`` of the YAML's args.

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from deployments.graph import graph
from serve_app.credentials import Secrets
from serve_app.settings import Settings


class BuildArgs(BaseModel):
    """The ``args`` of ``serve_config.yaml``."""

    model_config = ConfigDict(extra="forbid")

    config: Path | None = None
    """Settings file; the environment wins over it."""


def build(args: BuildArgs) -> Application:
    """The graph for ``serve run`` and ``serve deploy``. Raises ConfigError for a setting that cannot work."""
    return graph(Settings.load(args.config), Secrets.from_environment())
