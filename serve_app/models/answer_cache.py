"""Answers given again: to the very same question, asked of the same model with the same tools and settings, by the same tenant.

An optional layer around the gateway. Only answers are kept that a model has ended by itself, without calling a tool, and which it
would give again: those asked for at temperature 0, unless the settings say that all may be. Trials go past it: what they measure
is the model, and what users are told must not come from them.

A key is a hash of all that an answer depends on, the tenant among it, and stands in the tenant's own namespace. What makes calls
different without making answers so (deadline, ids, who is served first) is no part of it; whatever else a request has or comes
to have, is.
"""

from __future__ import annotations

import hashlib
import time
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from serve_app.caching.port import Cache
from serve_app.domain.generation import FROM_CACHE, Generation, ModelCatalog, ModelRequest
from serve_app.models.gateway import ProviderState
from serve_app.models.layers import CheckedGateway
from serve_app.models.port import TextSink
from serve_app.settings import AnswerCacheSettings
from serve_app.telemetry import Metrics

_NO_PART_OF_THE_QUESTION = frozenset({"deadline", "turn_id", "request_id", "priority", "fresh"})
_ENCODER = msgspec.msgpack.Encoder(order="sorted")


class _Kept(Struct, frozen=True, array_like=True):
    model_id: str
    text: str


_DECODER: msgspec.msgpack.Decoder[_Kept] = msgspec.msgpack.Decoder(_Kept)


class AnswerCachingGateway:
    """The gateway port around another. ``models``: a fingerprint of the models file, so that a change of it asks anew."""

    def __init__(
        self, gateway: CheckedGateway, cache: Cache, settings: AnswerCacheSettings, metrics: Metrics, models: str
    ) -> None:
        self._gateway = gateway
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._models = models

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        if request.fresh or not (self._settings.any_temperature or request.settings.temperature == 0):
            self._count("bypass")
            return await self._gateway.generate(request, on_text)
        began = time.monotonic()
        key = answer_key(request, self._models)
        if (kept := await self._find(key)) is not None:
            self._count("hit")
            on_text([kept.text])
            took_ms = round((time.monotonic() - began) * 1000)
            return Generation(
                model_id=kept.model_id,
                finish_reason="stop",
                text=kept.text,
                first_delta_ms=took_ms,
                duration_ms=took_ms,
                provider=FROM_CACHE,
            )
        self._count("miss")
        generation = await self._gateway.generate(request, on_text)
        if _would_come_again(generation):
            value = _ENCODER.encode(_Kept(generation.model_id, generation.text))
            await self._cache.set(key, value, ttl_s=self._settings.ttl_s)
        return generation

    async def catalog(self) -> ModelCatalog:
        return await self._gateway.catalog()

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        return await self._gateway.check(timeout_s)

    async def aclose(self) -> None:
        try:
            await self._gateway.aclose()
        finally:
            await self._cache.close()

    async def _find(self, key: str) -> _Kept | None:
        held = await self._cache.get(key)
        try:
            return None if held is None else _DECODER.decode(held.value)
        except msgspec.DecodeError:  # another version's
            return None

    def _count(self, outcome: str) -> None:
        self._metrics.count("parley_answer_cache_total", outcome=outcome)


def answer_key(request: ModelRequest, models: str) -> str:
    """The key of a request's answer. ``models`` is the fingerprint of the models file."""
    question = {name: value for name, value in asdict(request).items() if name not in _NO_PART_OF_THE_QUESTION}
    digest = hashlib.sha256(_ENCODER.encode((models, question))).hexdigest()
    return f"answers:{quote(request.tenant_id, safe='')}:{digest}"


def _would_come_again(generation: Generation) -> bool:
    """Whether it is whole, is an answer, and of the model that was asked."""
    return bool(
        generation.finish_reason == "stop" and generation.text and not generation.tool_calls and not generation.warning
    )
