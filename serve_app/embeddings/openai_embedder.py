"""A provider's embedding model, through the openai SDK: OpenAI itself, Azure, or any server that speaks the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import openai

from serve_app.domain.usage import Price, Usage
from serve_app.embeddings.batching import Batches
from serve_app.embeddings.port import Embeddings
from serve_app.errors import DeadlineExceeded, NotFound, ParleyError
from serve_app.models.config import AzureProviderConfig, OpenAIProviderConfig
from serve_app.models.failures import ProviderFailures
from serve_app.models.http_client import TRANSPORT_ERRORS
from serve_app.models.openai_client import make_client
from serve_app.models.pricing import priced

ATTEMPTS = 4
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30.0
TIMEOUT_S = 60.0
"""Of one request."""
_UNKNOWN = 404
_SDK_ERRORS = (openai.OpenAIError, *TRANSPORT_ERRORS)
_UNREADABLE = (ValueError, TypeError, AttributeError, IndexError)
"""What comes of an answer that is none: the SDK does not check it."""


class OpenAIEmbedder:
    """Implements ``Embedder``. Requests that fail for a passing reason are made again, within bounds."""

    def __init__(
        self,
        config: OpenAIProviderConfig | AzureProviderConfig,
        api_key: str | None,
        model: str,
        price: Price | None = None,
        *,
        first_wait_s: float = FIRST_WAIT_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``model`` is its name at the provider."""
        base_url = config.endpoint if isinstance(config, AzureProviderConfig) else config.base_url
        self.name = f"{config.name}/{model}"
        self._provider = config.name
        self._model = model
        self._price = price
        self._first_wait_s = first_wait_s
        self._timeout_s = timeout_s
        self._failures = ProviderFailures(config.name, base_url, config.api_key_env, api_key)
        self._client = make_client(config, base_url, api_key)
        self._batches = Batches(self._compute)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        there = [at for at, text in enumerate(texts) if text.strip()]  # the provider refuses what is empty
        if len(there) == len(texts):
            return await self._batches.embed(texts)
        if not there:
            return Embeddings(vectors=np.zeros((len(texts), 1), np.float32))
        found = await self._batches.embed([texts[at] for at in there])
        vectors = np.zeros((len(texts), found.vectors.shape[1]), np.float32)
        vectors[there] = found.vectors
        return Embeddings(vectors=vectors, usage=found.usage)

    async def aclose(self) -> None:
        await self._batches.aclose()
        await self._client.close()

    async def _compute(self, texts: list[str]) -> Embeddings:
        wait_s = self._first_wait_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._request(texts)
            except ParleyError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(min(MAX_WAIT_S, error.retry_after_s or wait_s))
                wait_s *= 2
        raise AssertionError("unreachable")  # pragma: no cover

    async def _request(self, texts: list[str]) -> Embeddings:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.embeddings.create(model=self._model, input=texts)
            rows = sorted(answer.data, key=lambda one: one.index)
            vectors = np.array([one.embedding for one in rows], np.float32)
            if len(rows) != len(texts) or vectors.ndim != 2 or not np.isfinite(vectors).all():
                raise ValueError("not one vector for each text")
            tokens = int(answer.usage.prompt_tokens)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The model provider {self._provider!r} gave no embeddings within {self._timeout_s:g} s."
            ) from None
        except openai.APIStatusError as error:
            failure = self._failures.of_status(error.status_code, error.response.headers, error.body, self._model)
            if error.status_code == _UNKNOWN:  # the model, and so for every text
                raise NotFound(failure.message) from error
            raise failure from error
        except _SDK_ERRORS as error:
            raise self._failures.of(error) from error
        except _UNREADABLE:
            raise self._failures.malformed() from None
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        usage = Usage(input_tokens=tokens)
        return Embeddings(vectors=vectors, usage=usage if self._price is None else priced(usage, self._price))
