"""From settings to a gateway that is ready for calls."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from serve_app.credentials import Secrets
from serve_app.models.config import LocalProviderConfig, ModelsConfig
from serve_app.models.models_file import Lookup, read_models, simulation_needed, with_simulated
from serve_app.settings import Settings, environment_variable
from serve_app.telemetry import Metrics, logger

if TYPE_CHECKING:
    from serve_app.models.layers import CheckedGateway
    from serve_app.models.leased_quota import LeasedQuota
    from serve_app.models.local_transport import LocalModel
    from serve_app.models.provider_quota import ProviderQuota
    from serve_app.models.tenant_keys import ProviderKeyRecords
    from serve_app.rates.port import Rates

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
    quota: ProviderQuota | None = None,
    local: Mapping[str, LocalModel] | None = None,
) -> CheckedGateway:
    """The gateway for the models file, with prices and, where the settings name one, the cache of answers around it. No
    connection is made yet: ``check`` does that.

    ``simulated_base_url`` (ending in ``/v1``) is used where no provider is configured. ``tenants_keys`` are the keys that
    tenants have stored; without them, or without ``PARLEY_KEYS`` to open them, every call is made with the operator's.
    ``quota`` holds the providers' limits; without it nothing does. ``local`` are this cluster's own models by provider.
    Raises ConfigError for a file that cannot work, and where there is no provider at all.
    """
    # The vendor's SDK takes seconds to import, and whoever only asks what is configured does without it.
    from serve_app.caching.connect import connect_answers
    from serve_app.keys.connect import open_keys
    from serve_app.models.adapters import make_adapter
    from serve_app.models.answer_cache import AnswerCachingGateway
    from serve_app.models.gateway import Gateway
    from serve_app.models.pricing import Prices, PricingGateway
    from serve_app.models.tenant_keys import StoredTenantKeys

    config, keys = configured(settings, secrets, simulated_base_url)
    for name, reason in config.skipped.items():
        log.info("model provider left out", provider=name, reason=reason)
    ring = open_keys(secrets)
    own = StoredTenantKeys(tenants_keys, ring) if tenants_keys is not None and ring is not None else None
    make = partial(make_adapter, local=local)
    gateway: CheckedGateway = Gateway(config, keys, metrics, settings.turn.max_response_bytes, own, quota, make=make)
    if (cache := connect_answers(settings, secrets)) is not None:
        fingerprint = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
        gateway = AnswerCachingGateway(gateway, cache, settings.answer_cache, metrics, fingerprint)
    return PricingGateway(gateway, Prices(config), metrics)


def configured(
    settings: Settings, secrets: Secrets, simulated_base_url: str | None
) -> tuple[ModelsConfig, dict[str, str | None]]:
    """The models file as it counts here, and the operator's keys by provider. Raises ConfigError as ``connect`` does."""
    config = with_simulated(_read(settings, secrets), simulated_base_url)
    lookup = _lookup(secrets)
    keys = {
        provider.name: lookup(provider.api_key_env) if provider.api_key_env else None for provider in config.providers
    }
    return config, keys


def local_providers(settings: Settings, secrets: Secrets) -> tuple[LocalProviderConfig, ...]:
    """The models that this cluster is to run itself. Raises ConfigError."""
    config = _read(settings, secrets)
    return tuple(provider for provider in config.providers if isinstance(provider, LocalProviderConfig))


def connect_quota(settings: Settings, secrets: Secrets, metrics: Metrics, rates: Rates) -> LeasedQuota | None:
    """The limits that the models file names, held by ``rates``; None where it names none. Raises ConfigError."""
    from serve_app.models.leased_quota import LeasedQuota

    config = _read(settings, secrets)
    return LeasedQuota.of(config, rates, metrics)


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
