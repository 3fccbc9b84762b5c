"""What a turn is offered: the principal's tools and the models, remembered for a moment.

Asking two stages for every turn what changes a few times a day would cost more messages than the turn itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from serve_app.domain.generation import ModelCatalog, ModelInfo
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.usage import Price
from serve_app.models.port import ModelGateway
from serve_app.tools.port import ToolExecutor

K = TypeVar("K")
V = TypeVar("V")

_Holder = tuple[str, tuple[str, ...], tuple[str, ...] | None, tuple[str, ...]]

MAX_REMEMBERED = 256
CATALOG_TTL_S = 30.0
"""Models change with a deployment of their configuration."""


class Offer:
    """Tool sets by tenant, roles and terms, at most ``ttl_s`` old, and the catalogue, at most ``CATALOG_TTL_S``."""

    def __init__(self, tools: ToolExecutor, models: ModelGateway, ttl_s: float) -> None:
        self._tools = tools
        self._models = models
        self._tool_sets: _Remembered[_Holder, ToolSet] = _Remembered(ttl_s)
        self._catalogs: _Remembered[None, ModelCatalog] = _Remembered(CATALOG_TTL_S)

    async def tools_for(self, principal: Principal) -> ToolSet:
        # Users who share all that tools depend on share an entry.
        key = (principal.tenant_id, principal.roles, principal.terms.tools, principal.terms.denied_tools)
        return await self._tool_sets.get(key, lambda: self._tools.tools_for(principal))

    async def catalog(self) -> ModelCatalog:
        return await self._catalogs.get(None, self._models.catalog)

    def price_of(self, model_id: str | None) -> Price | None:
        """What the model that is meant cost when the catalogue was last seen."""
        found = self._find(model_id)
        return None if found is None else found.price

    def name_of(self, model_id: str | None) -> str:
        """What the catalogue calls it; empty where it does not."""
        found = self._find(model_id)
        return "" if found is None else found.model_id

    def _find(self, model_id: str | None) -> ModelInfo | None:
        catalog = self._catalogs.last(None)
        if catalog is None:
            return None
        wanted = model_id or catalog.default_model_id
        return next((model for model in catalog.models if wanted in (model.model_id, *model.aliases)), None)

    async def context_tokens(self, model_id: str | None) -> int:
        """The context of the model that will be used, in tokens."""
        catalog = await self.catalog()
        wanted = model_id or catalog.default_model_id
        for model in catalog.models:
            if wanted in (model.model_id, *model.aliases):
                return model.context_tokens
        return catalog.default_context_tokens


class _Remembered(Generic[K, V]):
    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._kept: dict[K, tuple[float, V]] = {}
        self._asking = asyncio.Lock()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        kept = self._kept.get(key)
        if kept is None or self._old(kept):
            async with self._asking:  # one asks, whoever came meanwhile finds the answer
                kept = self._kept.get(key)
                if kept is None or self._old(kept):
                    if len(self._kept) >= MAX_REMEMBERED:
                        self._kept.clear()
                    kept = self._kept[key] = (asyncio.get_running_loop().time(), await ask())
        return kept[1]

    def last(self, key: K) -> V | None:
        """What was asked last, however old."""
        kept = self._kept.get(key)
        return None if kept is None else kept[1]

    def _old(self, kept: tuple[float, V]) -> bool:
        return asyncio.get_running_loop().time() - kept[0] >= self._ttl_s
