"""The model catalog, remembered for a while: it is asked on the way into every turn and changes with deployments only."""

from __future__ import annotations

import time

from serve_app.domain.generation import ModelCatalog
from serve_app.errors import InvalidInput, ParleyError
from serve_app.models.port import ModelGateway

FRESH_S = 30.0


class CachedCatalog:
    """Asks the gateway at most every ``fresh_s``; an answer from before is better than none."""

    def __init__(self, models: ModelGateway, fresh_s: float = FRESH_S) -> None:
        self._models = models
        self._fresh_s = fresh_s
        self._kept: ModelCatalog | None = None
        self._stale_at = 0.0

    async def get(self) -> ModelCatalog:
        """Raises StageUnavailable when the gateway has never answered."""
        if self._kept is None or time.monotonic() >= self._stale_at:
            # Others use the old answer meanwhile.
            self._stale_at = time.monotonic() + self._fresh_s
            try:
                self._kept = await self._models.catalog()
            except ParleyError:
                self._stale_at = 0.0
                if self._kept is None:
                    raise
        return self._kept

    async def choose(self, model_id: str | None) -> str | None:
        """The model a turn will ask for, as far as ingress can tell. Raises InvalidInput for one that does not exist.

        While the gateway cannot be asked a turn is let in all the same: the gateway itself refuses unknown models.
        """
        try:
            catalog = await self.get()
        except ParleyError:
            return model_id
        if model_id is None:
            return catalog.default_model_id or (catalog.models[0].model_id if len(catalog.models) == 1 else None)
        if not catalog.any_model and all(model_id not in {model.model_id, *model.aliases} for model in catalog.models):
            raise InvalidInput(f"model_id: there is no model {model_id!r}; /api/capabilities lists them.")
        return model_id
