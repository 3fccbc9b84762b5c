"""From settings to embedders: the built-in one, or a model of a provider in the models file."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.embeddings.port import Embedder
from serve_app.embeddings.word_vectors import WORDS, WordVectors
from serve_app.errors import ConfigError
from serve_app.models.config import AzureProviderConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.connect import configured
from serve_app.models.pricing import Prices
from serve_app.settings import Settings

_Embedding = OpenAIProviderConfig | AzureProviderConfig


class Embedders:
    """Implements ``EmbedderSource``; each model has one embedder, and so one cache. Close it after use."""

    def __init__(self, settings: Settings, secrets: Secrets, simulated_base_url: str | None) -> None:
        self._settings = settings
        self._secrets = secrets
        self._simulated_base_url = simulated_base_url
        self._configured: tuple[ModelsConfig, dict[str, str | None]] | None = None
        self._made: dict[tuple[str, str], Embedder] = {}

    def embedder(self, model: str, provider: str | None = None) -> Embedder:
        if model == WORDS and provider is None:
            return self._made.setdefault(("", WORDS), WordVectors())
        if self._configured is None:
            self._configured = configured(self._settings, self._secrets, self._simulated_base_url)
        config, keys = self._configured
        chosen = _chosen(config, model, provider)
        key = (chosen.name, model)
        if key not in self._made:
            # The vendor's SDK takes seconds to import, and the built-in embedder does without it.
            from serve_app.embeddings.openai_embedder import OpenAIEmbedder

            price = Prices(config).find(chosen.name, model)
            self._made[key] = OpenAIEmbedder(chosen, keys[chosen.name], _upstream(chosen, model), price)
        return self._made[key]

    async def aclose(self) -> None:
        for made in self._made.values():
            await made.aclose()
        self._made.clear()


def connect_embedders(settings: Settings, secrets: Secrets, simulated_base_url: str | None) -> Embedders:
    """``simulated_base_url`` (ending in ``/v1``) is used where no provider is configured. Nothing is read or connected before an
    embedder is asked for, whose use then makes the connections."""
    return Embedders(settings, secrets, simulated_base_url)


def _chosen(config: ModelsConfig, model: str, provider: str | None) -> _Embedding:
    """The provider by name; else the first that lists the model, else the first that can embed."""
    able = [one for one in config.providers if isinstance(one, OpenAIProviderConfig | AzureProviderConfig)]
    names = ", ".join(one.name for one in able) or "none"
    if provider is not None:
        for one in able:
            if one.name == provider:
                return one
        raise ConfigError(
            f"The model provider '{provider}' is not configured, or cannot embed; providers that can are: {names}."
        )
    if not able:
        raise ConfigError(
            f"No model provider that is configured can embed with '{model}'; it takes one of kind openai or azure, "
            f"or model: {WORDS}, which is built in."
        )
    return next((one for one in able if _lists(one, model)), able[0])


def _lists(provider: _Embedding, model: str) -> bool:
    return provider.models != "*" and any(model in (one.id, *one.aliases) for one in provider.models)


def _upstream(provider: _Embedding, model: str) -> str:
    if provider.models == "*":
        return model
    return next((one.upstream or one.id for one in provider.models if model in (one.id, *one.aliases)), model)
