"""The built-in embedder: words and their pieces, hashed. It needs no account and no weights, and is the same everywhere.

Two texts are near where they share words, or words that are written alike; it knows no synonyms. Each word counts with the root
of how often it occurs, pieces of three letters less than whole words, very common words least.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from serve_app.embeddings.port import Embeddings, Vectors

WORDS = "words"
DIMENSIONS = 1024
MAX_CHARS = 100_000
"""Of a text; the rest of a longer one is not read."""
_WORD = re.compile(r"[^\W_]+(?:[.,'’-][^\W_]+)*")
_PIECE = 3
_PIECES_WEIGHT = 0.3
_COMMON_WEIGHT = 0.15
_COMMON_WORDS = (
    "a an the and or but of to in on at by for with from as is are was were be been it its this that these those i you he she we "
    "they me him her us them my your his our their do does did has have had will would can could not no yes there here if then "
    "than so what which who when where how all any some"
)
_COMMON = frozenset(_COMMON_WORDS.split())


class WordVectors:
    """Implements ``Embedder``."""

    name = WORDS

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _vector(text[:MAX_CHARS])
        return Embeddings(vectors=vectors)

    async def aclose(self) -> None:
        """Nothing is held."""


def _vector(text: str) -> Vectors:
    words = Counter(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
    vector = np.zeros(DIMENSIONS, np.float32)
    for word, times in words.items():
        weight = times**0.5 * (_COMMON_WEIGHT if word in _COMMON else 1.0)
        slots, signs = _slots(word)
        np.add.at(vector, slots, signs * np.float32(weight))
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


@lru_cache(maxsize=20_000)
def _slots(word: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a word's whole and its pieces fall, and with what weight and sign."""
    padded = f"<{word}>"
    pieces = [padded[at : at + _PIECE] for at in range(len(padded) - _PIECE + 1)] if len(word) > _PIECE else []
    hashed = [int.from_bytes(blake2b(piece.encode(), digest_size=8).digest(), "big") for piece in (word, *pieces)]
    weights = [1.0, *[_PIECES_WEIGHT / max(1, len(pieces)) ** 0.5] * len(pieces)]
    slots = np.array([one % DIMENSIONS for one in hashed], np.int64)
    signs = np.array(
        [weight if one >> 63 else -weight for one, weight in zip(hashed, weights, strict=True)], np.float32
    )
    return slots, signs
