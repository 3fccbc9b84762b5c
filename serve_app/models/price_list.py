"""The prices in a models file, whoever's keys are at hand: to plan for a provider one need not be its customer yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serve_app.domain.usage import Price
from serve_app.errors import ConfigError
from serve_app.models.config import PriceConfig
from serve_app.models.models_file import Lookup, read_models_mapping, with_references
from serve_app.models.pricing import price_of


def read_prices(path: Path, lookup: Lookup) -> tuple[str, dict[str, Price | None]]:
    """The default model's name (of the providers that are configured here; empty where none is named) and, by model and alias,
    what the file says it costs.

    The first mention of a model counts. Raises ConfigError that names the file.
    """
    resolved = with_references(read_models_mapping(path), lookup)
    providers = [provider for provider in resolved.get("providers") or () if isinstance(provider, dict)]
    prices: dict[str, Price | None] = {}
    for provider in providers:
        models = provider.get("models")
        for model in models if isinstance(models, list) else ():
            _add(prices, model, path)
    defaults = [resolved.get("chat_default"), *(p.get("chat_default") for p in providers if _enabled(p, lookup))]
    return next((str(name) for name in defaults if name), ""), prices


def _enabled(provider: dict[str, Any], lookup: Lookup) -> bool:
    names = provider.get("enabled_by")
    return not isinstance(names, list) or any(lookup(str(name)) for name in names)


def _add(prices: dict[str, Price | None], model: Any, path: Path) -> None:
    if isinstance(model, str) and model:
        prices.setdefault(model, None)
    if not isinstance(model, dict) or not model.get("id"):
        return
    price = None
    if model.get("price") is not None:
        try:
            price = price_of(PriceConfig.model_validate(model["price"]))
        except ValidationError as error:
            raise ConfigError(
                f"The models file {path} has a price for {model['id']} that cannot be used: {error}."
            ) from error
    for name in (model["id"], *(model.get("aliases") or ())):
        prices.setdefault(str(name), price)
