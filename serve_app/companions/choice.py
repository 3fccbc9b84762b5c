"""Which companions a graph brings along, and where its stages find them."""

from __future__ import annotations

from serve_app.companions.server import CompanionName
from serve_app.settings import Secrets, Settings


def companions_of(settings: Settings, secrets: Secrets) -> tuple[CompanionName, ...]:
    """Empty in production, which never starts stand-ins."""
    if settings.mode == "production":
        return ()
    wanted = settings.companions.provider
    provider = wanted == "on" or (wanted == "auto" and not secrets.has_provider)
    chosen: list[CompanionName] = ["provider"] if provider else []
    return (*chosen, "crm", "hr") if settings.companions.tools else tuple(chosen)


def provider_url(settings: Settings, secrets: Secrets) -> str | None:
    """Base URL of the simulated provider, or None where it does not run."""
    if "provider" not in companions_of(settings, secrets):
        return None
    return f"http://{settings.companions.host}:{settings.companions.port}/v1"
