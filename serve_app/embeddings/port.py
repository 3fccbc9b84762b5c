"""What an embedder gives. Behind it: hashed words in this process, or a provider's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from serve_app.domain.usage import Usage

Vectors: TypeAlias = npt.NDArray[np.float32]


class Embeddings(Struct, frozen=True, kw_only=True):
    """``vectors``: one row per text, in their order, each of length 1 (or all zero for a text without any content), so that the
    product of two rows is their cosine. ``usage``: what was newly computed for this question."""

    vectors: Vectors
    usage: Usage = Usage()


class Embedder(Protocol):
    """One model."""

    @property
    def name(self) -> str: ...

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Raises InvalidInput for a text or a model that cannot be used, QuotaExceeded, UpstreamFailed and DeadlineExceeded."""

    async def aclose(self) -> None:
        """Lets go of connections."""


class EmbedderSource(Protocol):
    """Embedders by model."""

    def embedder(self, model: str, provider: str | None = None) -> Embedder:
        """The embedder for a model; ``words`` is built in. Raises ConfigError where the provider is not there or cannot embed."""
