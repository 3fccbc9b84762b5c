"""The embedded default: which companions a graph brings along when nothing else is configured, and where they are found."""

from __future__ import annotations

from typing import Literal

from serve_app.credentials import Secrets
from serve_app.models.connect import needs_simulated_provider
from serve_app.settings import Settings

Companion = Literal["provider", "crm", "hr"]


def companions_of(settings: Settings, secrets: Secrets) -> tuple[Companion, ...]:
    """Empty in production, which never starts stand-ins. Raises ConfigError for a models file that cannot be read."""
    if settings.mode == "production":
        return ()
    wanted = settings.companions.provider
    simulated = wanted == "on" or (wanted == "auto" and needs_simulated_provider(settings, secrets))
    chosen: tuple[Companion, ...] = ("provider",) if simulated else ()
    return (*chosen, "crm", "hr") if settings.companions.tools else chosen


def provider_url(settings: Settings, secrets: Secrets) -> str | None:
    """Base URL of the simulated provider, or None where it does not run."""
    if "provider" not in companions_of(settings, secrets):
        return None
    return f"http://{settings.companions.host}:{settings.companions.port}/v1"


def tool_variables(settings: Settings) -> dict[str, str]:
    """Variables that the tool servers' file may use beside the environment's: where the companions listen."""
    return {
        "PARLEY_COMPANIONS__HOST": settings.companions.host,
        "PARLEY_COMPANIONS__PORT": str(settings.companions.port),
    }
