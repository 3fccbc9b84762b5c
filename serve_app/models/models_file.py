"""Reading the operator's models file: references, providers that are not configured, mistakes.

``${NAME}`` and ``${NAME:-default}`` in a value stand for an environment variable; an empty one counts as unset. A
provider whose variables are absent is left out, so that one file serves a laptop without any account and a cluster with
several. Keys themselves are not read here: they are looked up when a gateway is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from serve_app.errors import ConfigError
from serve_app.models.config import (
    AzureProviderConfig,
    ModelsConfig,
    OpenAIProviderConfig,
    Part,
    Provider,
)

Lookup = Callable[[str], str | None]
"""Finds an environment variable."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")

_KINDS: dict[str, type[Provider]] = {"openai": OpenAIProviderConfig, "azure": AzureProviderConfig}
_COMPUTED = ("is_simulated", "skipped")


def read_models(path: Path, lookup: Lookup) -> ModelsConfig:
    """Reads the file. No provider may be left at the end: see ``simulation_needed`` and ``with_simulated``.

    Raises ConfigError, which names the file and the key and says what to do.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The models file {path} cannot be read: {error.strerror}; set PARLEY_MODELS.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The models file {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"The models file {path} must hold a mapping with the key 'providers'.")
    for key in _COMPUTED:
        if key in loaded:
            raise ConfigError(f"{path}: {key}: is no key of this file; remove it.")
    listed = loaded.get("providers") or []
    if not isinstance(listed, list):
        raise ConfigError(f"{path}: providers: must be a list.")
    providers: list[Any] = []
    skipped: dict[str, str] = {}
    for position, raw in enumerate(listed):
        where = f"providers[{position}]"
        provider, reason = _usable(path, where, raw, lookup)
        if provider is not None:
            providers.append(provider)
        elif reason is not None:
            skipped[str(raw.get("name", where))] = reason
    rest = {key: _resolved(value, lookup, set()) for key, value in loaded.items() if key != "providers"}
    config = _validate(ModelsConfig, rest | {"skipped": skipped}, path, "")
    return _checked(config.model_copy(update={"providers": tuple(providers)}), path)


def simulation_needed(config: ModelsConfig) -> bool:
    """Whether no provider is configured, so that the simulated one has to stand in."""
    return not config.providers


def with_simulated(config: ModelsConfig, base_url: str | None) -> ModelsConfig:
    """``config``, with the simulated provider at ``base_url`` where no other is left.

    Raises ConfigError where that is needed and there is none.
    """
    if not simulation_needed(config):
        return config
    if base_url is None or config.simulated is None:
        left_out = "".join(f" {name}: {reason}" for name, reason in config.skipped.items())
        raise ConfigError(
            "No model provider is configured and the simulated one is off: set OPENAI_API_KEY, OPENAI_BASE_URL or "
            f"AZURE_OPENAI_ENDPOINT, or list a provider in the models file.{left_out}"
        )
    model = config.simulated.model
    provider = OpenAIProviderConfig(
        name="simulated", kind="openai", base_url=base_url, models="*", chat_default=model, utility=model
    )
    context = config.simulated.context_tokens or config.default_context_tokens
    return config.model_copy(
        update={
            "providers": (provider,),
            "chat_default": model,
            "utility": model,
            "default_context_tokens": context,
            "is_simulated": True,
        }
    )


def _usable(path: Path, where: str, raw: Any, lookup: Lookup) -> tuple[Provider | None, str | None]:
    """The provider of one entry, or why it is left out."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {where}: must be a mapping with name, kind and models.")
    schema = _KINDS.get(str(raw.get("kind")))
    if schema is None:
        raise ConfigError(f"{path}: {where}.kind: must be one of {', '.join(_KINDS)}.")
    for key in raw:
        if key not in schema.model_fields:
            raise ConfigError(f"{path}: {where}.{key}: {_unknown_key(str(key))}")
    enabled_by = raw.get("enabled_by") or []
    if not isinstance(enabled_by, list):
        raise ConfigError(f"{path}: {where}.enabled_by: must be a list of environment variables.")
    if enabled_by and not any(lookup(str(name)) for name in enabled_by):
        return None, f"none of {', '.join(map(str, enabled_by))} is set."
    missing: set[str] = set()
    resolved = _resolved(raw, lookup, missing)
    key_name = raw.get("api_key_env")
    if isinstance(key_name, str) and not lookup(key_name) and (not enabled_by or schema is AzureProviderConfig):
        missing.add(key_name)
    if missing and not enabled_by:
        return None, f"{', '.join(sorted(missing))} not set."
    if missing:
        one = sorted(missing)[0]
        raise ConfigError(f"{path}: {where}: refers to {one}, which is not set; set it or unset {enabled_by[0]}.")
    return _validate(schema, resolved, path, where), None


def _resolved(value: Any, lookup: Lookup, missing: set[str]) -> Any:
    """``value`` with its references replaced; names without a value and without a default are added to ``missing``."""
    if isinstance(value, dict):
        return {key: _resolved(item, lookup, missing) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, lookup, missing) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        found = lookup(match[1]) or match[2]
        if found is None:
            missing.add(match[1])
        return found or ""

    return _REFERENCE.sub(replacement, value)


_PartT = TypeVar("_PartT", bound=Part)


def _validate(schema: type[_PartT], values: Mapping[str, Any], path: Path, where: str) -> _PartT:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        first = max(errors, key=lambda found: len(found["loc"]))  # of a choice, the branch that came furthest was meant
        steps = [
            step for step in first["loc"] if not (isinstance(step, str) and step.startswith(("function", "literal")))
        ]
        key = where
        for step in steps:
            key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else str(step)
        if first["type"] == "extra_forbidden":
            problem = _unknown_key(str(steps[-1]))
        elif str(steps[-1] if steps else "").endswith("_env"):
            problem = "must be the name of an environment variable, not its value."
        else:
            problem = first["msg"].removeprefix("Value error, ").rstrip(".") + "."
        raise ConfigError(f"{path}: {key}: {problem}") from None  # the cause would repeat values, a key perhaps


def _unknown_key(key: str) -> str:
    if key in ("api_key", "key", "token"):
        return "keys do not belong in this file; put it into an environment variable and name that with api_key_env."
    return "is no known key; remove it or correct its name."


def _checked(config: ModelsConfig, path: Path) -> ModelsConfig:
    """What spans several providers."""
    names: set[str] = set()
    models: dict[str, str] = {}
    any_model = False
    for provider in config.providers:
        if provider.name in names:
            raise ConfigError(f"{path}: providers: the name {provider.name!r} is used twice; rename one.")
        names.add(provider.name)
        if provider.models == "*":
            any_model = True
            continue
        for model in provider.models:
            if model.id in models:
                raise ConfigError(
                    f"{path}: providers: the model {model.id!r} is listed twice (by {models[model.id]!r} and "
                    f"{provider.name!r}); give one of them another id and its real name as upstream."
                )
            models[model.id] = provider.name
    for key, wanted in (("chat_default", config.default_model_id), ("utility", config.utility_model_id)):
        if wanted and config.providers and not any_model and wanted not in models:
            raise ConfigError(f"{path}: {key}: no provider lists the model {wanted!r}; add it or choose another.")
    return config
