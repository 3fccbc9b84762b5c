"""From settings to a gateway that is ready for calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.credentials import Secrets
from serve_app.models.config import ModelsConfig
from serve_app.models.models_file import Lookup, read_models, simulation_needed, with_simulated
from serve_app.settings import Settings, environment_variable
from serve_app.telemetry import Metrics, logger

if TYPE_CHECKING:
    from serve_app.models.gateway import Gateway
    from serve_app.models.tenant_keys import ProviderKeyRecords

log = logger("models")


def needs_simulated_provider(settings: Settings, secrets: Secrets) -> bool:
    """Whether the models file leaves no provider under this environment. Raises ConfigError."""
    return simulation_needed(_read(settings, secrets))


async def connect(
    settings: Settings,
    secrets: Secrets,
    metrics: Metrics,
    simulated_base_url: str | None,
    tenants_keys: ProviderKeyRecords | None = None,
) -> Gateway:
    """The gateway for the models file. No connection is made yet: ``Gateway.check`` does that.

    ``simulated_base_url`` (ending in ``/v1``) is used where no provider is configured. ``tenants_keys`` are the keys that
    tenants have stored; without them, or without ``PARLEY_KEYS`` to open them, every call is made with the operator's.
    Raises ConfigError for a file that cannot work, and where there is no provider at all.
    """
    # The vendor's SDK takes seconds to import, and whoever only asks what is configured does without it.
    from serve_app.keys.connect import open_keys
    from serve_app.models.gateway import Gateway
    from serve_app.models.tenant_keys import StoredTenantKeys

    config = with_simulated(_read(settings, secrets), simulated_base_url)
    for name, reason in config.skipped.items():
        log.info("model provider left out", provider=name, reason=reason)
    lookup = _lookup(secrets)
    keys = {
        provider.name: lookup(provider.api_key_env) if provider.api_key_env else None for provider in config.providers
    }
    ring = open_keys(secrets)
    own = StoredTenantKeys(tenants_keys, ring) if tenants_keys is not None and ring is not None else None
    return Gateway(config, keys, metrics, settings.turn.max_response_bytes, own)


def _read(settings: Settings, secrets: Secrets) -> ModelsConfig:
    return read_models(settings.path(settings.models), _lookup(secrets))


def _lookup(secrets: Secrets) -> Lookup:
    """Variables by name: the secrets that were passed down first, since a replica may live in another environment."""
    passed = {
        name.upper(): value if isinstance(value, str) else value.get_secret_value()
        for name in Secrets.model_fields
        if (value := getattr(secrets, name)) is not None
    }

    def lookup(name: str) -> str | None:
        # Whoever passes secrets decides: a variable that is theirs to know is not looked for elsewhere.
        if name.lower() in Secrets.model_fields:
            return passed.get(name)
        return environment_variable(name)

    return lookup
