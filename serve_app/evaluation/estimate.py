"""What a run may cost, roughly, before it is begun."""

from __future__ import annotations

from itertools import islice

from msgspec import Struct

from serve_app.domain.generation import ModelCatalog, ModelInfo
from serve_app.domain.usage import Usage
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.trial_turns import questions

LOOKED_AT = 500
"""Cases whose length is measured."""
CHARS_PER_TOKEN = 4
PROMPT_TOKENS = 1_000
"""Of the system prompt and the tools, about."""
ANSWER_TOKENS = 250
STEPS = 2
"""Model calls of a turn, about: one that calls a tool, and one that answers."""


class Estimate(Struct, frozen=True, kw_only=True):
    """``microusd`` is None where no model of the run has a price. ``unpriced``: models without one."""

    turns: int
    microusd: int | None
    unpriced: tuple[str, ...] = ()


def estimate(store: RunStore, catalog: ModelCatalog) -> Estimate:
    """Of all cells that are missing; judges are not in it."""
    meta = store.meta
    totals = store.totals()
    turns, chars, cases = 0, 0, 0
    for _, case in islice(store.cases(), LOOKED_AT):
        asked = questions(case, meta.mode)
        cases += 1
        turns += len(asked)
        chars += sum(len(question.text) + sum(len(one.content) for one in question.before) for question in asked)
    if not cases:
        return Estimate(turns=0, microusd=None)
    cells = (totals.cells - totals.results) / max(1, len(meta.configurations))
    turns_each = turns / cases
    usage = Usage(
        input_tokens=round(STEPS * (PROMPT_TOKENS * turns_each + chars / cases / CHARS_PER_TOKEN)),
        output_tokens=round(ANSWER_TOKENS * turns_each),
    )
    cost, unpriced, priced = 0.0, [], False
    for configuration in meta.configurations:
        info = _info(catalog, configuration.model)
        if info is None or info.price is None:
            unpriced.append(configuration.model or catalog.default_model_id or "the default model")
        else:
            priced = True
            cost += info.price.cost_microusd(usage) * cells
    return Estimate(
        turns=round(turns_each * (totals.cells - totals.results)),
        microusd=round(cost) if priced else None,
        unpriced=tuple(dict.fromkeys(unpriced)),
    )


def _info(catalog: ModelCatalog, model: str) -> ModelInfo | None:
    name = model or catalog.default_model_id
    return next((info for info in catalog.models if name == info.model_id or name in info.aliases), None)
