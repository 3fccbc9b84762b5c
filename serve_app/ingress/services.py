"""What ingress is given: the ports of every stage it talks to, and its settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.files.port import FileStore
from serve_app.identity.port import Authenticator
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.storage.port import Store
from serve_app.telemetry import Metrics
from serve_app.tools.port import ToolExecutor
from serve_app.turns.port import Turns

Check = Callable[[], Awaitable[None]]
"""Returns when a dependency is fine, raises when it is not."""


@dataclass(frozen=True)
class IngressServices:
    """``checks`` are further dependencies that ``/ready`` reports as critical, by name. ``web_dir`` holds the page."""

    settings: Settings
    store: Store
    files: FileStore
    turns: Turns
    models: ModelGateway
    tools: ToolExecutor
    prompts: PromptBuilder
    authenticator: Authenticator
    metrics: Metrics
    checks: Mapping[str, Check] = field(default_factory=dict)
    web_dir: Path = PROJECT_ROOT / "serve_app" / "web"
