"""The adapter of a provider by its kind. Each vendor's SDK is imported when it is first needed, and may not be installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serve_app.errors import ConfigError
from serve_app.models.adapter import ProviderAdapter
from serve_app.models.config import (
    AnthropicProviderConfig,
    GoogleProviderConfig,
    LocalProviderConfig,
    ProviderConfig,
)

if TYPE_CHECKING:
    from serve_app.models.local_transport import LocalModel


def make_adapter(
    config: ProviderConfig,
    key: str | None,
    max_response_bytes: int,
    local: Mapping[str, LocalModel] | None = None,
) -> ProviderAdapter:
    """The adapter for ``config``; no connection is made yet. ``key`` None sends no credential. ``local`` are the models of this
    cluster by provider.

    Raises ConfigError where the provider's SDK is an extra that is not installed.
    """
    if isinstance(config, AnthropicProviderConfig):
        try:
            from serve_app.models.anthropic_adapter import AnthropicAdapter
        except ModuleNotFoundError as error:
            raise _not_installed(config.name, "anthropic", error) from error
        return AnthropicAdapter(config, key, max_response_bytes)
    if isinstance(config, GoogleProviderConfig):
        try:
            from serve_app.models.google_adapter import GoogleAdapter
        except ModuleNotFoundError as error:
            raise _not_installed(config.name, "google", error) from error
        return GoogleAdapter(config, key, max_response_bytes)
    from serve_app.models.openai_adapter import OpenAIAdapter

    if isinstance(config, LocalProviderConfig):
        from serve_app.models.local_transport import local_client

        model = (local or {}).get(config.name)
        if model is None:
            raise ConfigError(
                f"The model of provider {config.name!r} runs as a stage of the graph, which is not there: start the graph "
                "again after a change to local providers in the models file."
            )
        return OpenAIAdapter(config, key, max_response_bytes, local_client(config, model))
    return OpenAIAdapter(config, key, max_response_bytes)


def _not_installed(provider: str, extra: str, error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"The model provider {provider!r} needs {error.name}, which is not installed: pip install 'parley[{extra}]', "
        "or take the provider out of the models file."
    )
