"""Reading the operator's models file: references, providers that are not configured, mistakes.

``${NAME}`` and ``${NAME:-default}`` in a value stand for an environment variable; an empty one counts as unset. A
provider whose variables are absent is left out, so that one file serves a laptop without any account and a cluster with
several. Keys themselves are not read here: they are looked up when a gateway is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from serve_app.errors import ConfigError
from serve_app.models.config import (
    AnthropicProviderConfig,
    AzureProviderConfig,
    GoogleProviderConfig,
    LocalProviderConfig,
    ModelConfig,
    ModelsConfig,
    OpenAIProviderConfig,
    Part,
    Provider,
)
from serve_app.yaml_files import read_mapping

Lookup = Callable[[str], str | None]
"""Finds an environment variable."""

PROVIDER_VARIABLES = "OPENAI_API_KEY, OPENAI_BASE_URL, AZURE_OPENAI_ENDPOINT, ANTHROPIC_API_KEY or GEMINI_API_KEY"
"""Which variables name a provider in the models file that comes along, for sentences."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")

_KINDS: dict[str, type[Provider]] = {
    "openai": OpenAIProviderConfig,
    "azure": AzureProviderConfig,
    "anthropic": AnthropicProviderConfig,
    "google": GoogleProviderConfig,
    "local": LocalProviderConfig,
}
_EXTRAS = {"anthropic": "anthropic", "google": "google.genai"}
"""The package that a kind needs, which is installed by the extra of the kind's name."""
_COMPUTED = ("is_simulated", "skipped")


def read_models_mapping(path: Path) -> dict[str, Any]:
    """The file as it is written. Raises ConfigError that names it."""
    return read_mapping(path, "models file", "a mapping with the key 'providers'", "; set PARLEY_MODELS")


def read_models(path: Path, lookup: Lookup) -> ModelsConfig:
    """Reads the file. No provider may be left at the end: see ``simulation_needed`` and ``with_simulated``.

    Raises ConfigError, which names the file and the key and says what to do.
    """
    loaded = read_models_mapping(path)
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
            f"No model provider is configured and the simulated one is off: set {PROVIDER_VARIABLES}, "
            f"or list a provider in the models file.{left_out}"
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
    kind = str(raw.get("kind"))
    schema = _KINDS.get(kind)
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
    key_name = _first_set(raw.get("api_key_env"), lookup)
    resolved = _resolved(raw if key_name is None else raw | {"api_key_env": key_name}, lookup, missing)
    if isinstance(key_name, str) and not lookup(key_name) and (not enabled_by or schema is AzureProviderConfig):
        missing.add(key_name)
    if missing and not enabled_by:
        return None, f"{', '.join(sorted(missing))} not set."
    if missing:
        one = sorted(missing)[0]
        raise ConfigError(f"{path}: {where}: refers to {one}, which is not set; set it or unset {enabled_by[0]}.")
    provider = _validate(schema, resolved, path, where)
    if kind in _EXTRAS and not _installed(_EXTRAS[kind]):
        unset = f", or unset {' and '.join(map(str, enabled_by))}" if enabled_by else ""
        raise ConfigError(
            f"{path}: {where}.kind: {kind!r} needs a package that is not installed: pip install 'parley[{kind}]'{unset}."
        )
    return provider, None


def _first_set(names: Any, lookup: Lookup) -> Any:
    """Of several variables for a key the first that is set, else the first."""
    if not isinstance(names, list) or not names:
        return names
    return next((name for name in names if isinstance(name, str) and lookup(name)), names[0])


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nothing of its namespace is there
        return False


def with_references(value: Any, lookup: Lookup) -> Any:
    """``value``, as YAML gives it, with its references replaced; one without value and default becomes empty."""
    return _resolved(value, lookup, set())


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
    """What spans several providers: no name twice, and nothing refers to what is not there."""
    providers: set[str] = set()
    owners: dict[str, str] = {}
    for provider in config.providers:
        if provider.name in providers:
            raise ConfigError(f"{path}: providers: the name {provider.name!r} is used twice; rename one.")
        providers.add(provider.name)
    for name, model in _listed(config):
        if model.id in owners:
            raise ConfigError(
                f"{path}: providers: the model {model.id!r} is listed twice (by {owners[model.id]!r} and "
                f"{name!r}); give one of them another id and its real name as upstream."
            )
        owners[model.id] = name
    aliases: dict[str, str] = {}
    for _, model in _listed(config):
        for alias in model.aliases:
            other = aliases.setdefault(alias, model.id)
            if alias in owners or other != model.id:
                taken = "is a model itself" if alias in owners else f"is one of {other!r} as well"
                raise ConfigError(f"{path}: providers: the alias {alias!r} of {model.id!r} {taken}; choose another.")
    if any(provider.models == "*" for provider in config.providers):
        return config
    known = owners.keys() | aliases.keys()
    for _, model in _listed(config):
        for wanted in model.fallback:
            if wanted not in known:
                raise ConfigError(
                    f"{path}: providers: the fallback {wanted!r} of {model.id!r} is listed by no provider; add it or "
                    "choose another."
                )
            if aliases.get(wanted, wanted) == model.id:
                raise ConfigError(f"{path}: providers: {model.id!r} is its own fallback; take it out.")
    for key, wanted_default in (("chat_default", config.default_model_id), ("utility", config.utility_model_id)):
        if wanted_default and config.providers and wanted_default not in known:
            raise ConfigError(
                f"{path}: {key}: no provider lists the model {wanted_default!r}; add it or choose another."
            )
    return config


def _listed(config: ModelsConfig) -> Iterator[tuple[str, ModelConfig]]:
    """The models of all providers that list them, each with its provider's name."""
    for provider in config.providers:
        if provider.models != "*":
            for model in provider.models:
                yield provider.name, model
