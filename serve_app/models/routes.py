"""Which model a name means, who serves it, and who answers in its place.

Names are the ids of models and their aliases; where a provider takes any name, every other name means a model of its.
"""

from __future__ import annotations

from msgspec import Struct

from serve_app.domain.generation import ModelInfo
from serve_app.errors import InvalidInput
from serve_app.models.config import ModelConfig, ModelsConfig
from serve_app.telemetry import logger

_NAMED_IN_ERROR = 5
_MAX_NAME_CHARS = 200

log = logger("models")


class Route(Struct, frozen=True):
    """A model and its provider. ``listed``: the models file names it; no client has made it up."""

    provider: str
    model: ModelConfig
    listed: bool = True


class Routes:
    """All routes of a models file."""

    def __init__(self, config: ModelsConfig) -> None:
        self._default_context_tokens = config.default_context_tokens
        self.any_provider = next((provider.name for provider in config.providers if provider.models == "*"), None)
        """The provider that takes any name, if one does."""
        self._routes = _listed(config, self.any_provider)
        self._names = dict(self._routes)
        for route in self._routes.values():
            for alias in route.model.aliases:
                self._names.setdefault(alias, route)
        self._chains = {id_: self._chain(route) for id_, route in self._routes.items()}

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._routes)

    def only(self) -> str | None:
        """The only model there is."""
        return next(iter(self._routes)) if len(self._routes) == 1 and self.any_provider is None else None

    def canonical(self, name: str | None) -> str | None:
        """The id of the model that ``name`` is an alias of; any other name as it is."""
        route = self._names.get(name) if name else None
        return name if route is None else route.model.id

    def find(self, name: str) -> Route:
        """Raises InvalidInput where there is no such model, or cannot be."""
        route = self._names.get(name)
        if route is not None:
            return route
        if self.any_provider is None:
            raise InvalidInput(f"There is no model {short(name)!r}; {self.some()}")
        if len(name) > _MAX_NAME_CHARS or not name.isprintable() or any(char.isspace() for char in name):
            raise InvalidInput(f"{short(name)!r} cannot be the name of a model.")
        return Route(self.any_provider, ModelConfig.model_construct(id=name), False)

    def chain(self, route: Route) -> tuple[Route, ...]:
        """The route, and those that are asked instead of it, in order."""
        return self._chains.get(route.model.id) or (route,)

    def infos(self) -> tuple[ModelInfo, ...]:
        return tuple(
            ModelInfo(
                model_id=model.id,
                provider=route.provider,
                context_tokens=self.context_tokens(route),
                max_output_tokens=model.max_output_tokens,
                aliases=model.aliases,
                capabilities=model.capabilities,
            )
            for route in self._routes.values()
            for model in (route.model,)
        )

    def context_tokens(self, route: Route) -> int:
        return route.model.context_tokens or self._default_context_tokens

    def some(self) -> str:
        """The end of a sentence that names a few."""
        names = list(self._routes)
        if not names:
            return "none is listed."
        more = f" and {len(names) - _NAMED_IN_ERROR} more" if len(names) > _NAMED_IN_ERROR else ""
        return (
            f"there are {', '.join(names[:_NAMED_IN_ERROR])}{more}." if len(names) > 1 else f"there is only {names[0]}."
        )

    def _chain(self, route: Route) -> tuple[Route, ...]:
        chain = {route.model.id: route}
        for name in route.model.fallback:
            instead = self._names.get(name)
            if instead is None and self.any_provider is not None:
                instead = Route(self.any_provider, ModelConfig(id=name))
            if instead is None:  # of a provider that is not configured here
                log.info("fallback left out", model=route.model.id, fallback=name, reason="no provider lists it")
            else:
                chain.setdefault(instead.model.id, instead)
        return tuple(chain.values())


def _listed(config: ModelsConfig, any_provider: str | None) -> dict[str, Route]:
    """Every model that has a name here: the listed ones, and the defaults of providers that take any."""
    routes: dict[str, Route] = {}
    for provider in config.providers:
        if provider.models == "*":
            named = [ModelConfig(id=model) for model in (provider.chat_default, provider.utility) if model]
        else:
            named = list(provider.models)
        for model in named:
            routes.setdefault(model.id, Route(provider.name, model))
    aliases = {alias for route in routes.values() for alias in route.model.aliases}
    for wanted in (config.chat_default, config.utility):
        if wanted and any_provider and wanted not in aliases:
            routes.setdefault(wanted, Route(any_provider, ModelConfig(id=wanted)))
    return routes


def short(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"
