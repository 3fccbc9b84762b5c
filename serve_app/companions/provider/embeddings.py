"""Embeddings of the simulated provider: hashed word vectors. Texts that share words are near each other; nothing more is known.

Each meaningful word's stem stands for one direction of the space (chosen by its hash, with a sign), weighted by how often it
occurs; the vector has length 1. The same text has the same vector in every process.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections import Counter
from typing import Any, Final, Literal

import msgspec

from serve_app.companions.provider.assistant.words import content_stems, words
from serve_app.companions.provider.failures import ProviderError
from serve_app.companions.provider.requests import decoded

DEFAULT_DIMENSIONS: Final = 256
MAX_DIMENSIONS: Final = 3072
MAX_INPUTS: Final = 2048
MAX_INPUT_CHARS: Final = 8192 * 4


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """What is read of a request; lists of token numbers, which the real service takes too, are refused."""

    input: str | list[str]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        """The inputs, one or several."""
        return [self.input] if isinstance(self.input, str) else self.input


_decoder: Final = msgspec.json.Decoder(EmbeddingsRequest)


def read_embeddings_request(body: bytes, deployment: str | None) -> EmbeddingsRequest:
    """Decode and check a request; on the Azure paths the deployment is the model.

    Raises:
        ProviderError: 400, in the words a client can act on.
    """
    request = decoded(_decoder, body)
    if deployment is not None:
        request = msgspec.structs.replace(request, model=deployment)
    if not request.model:
        raise ProviderError(400, "you must provide a model parameter", param="model")
    if not request.texts or not all(request.texts):
        raise ProviderError(400, "'$.input' is invalid: give at least one text, and none that is empty.", param="input")
    if len(request.texts) > MAX_INPUTS:
        raise ProviderError(400, f"'$.input' is invalid: at most {MAX_INPUTS} texts.", code="array_above_max_length",
                            param="input")  # fmt: skip
    if max(map(len, request.texts)) > MAX_INPUT_CHARS:
        raise ProviderError(400, "This model's maximum context length is 8192 tokens; reduce the length of the input.",
                            code="context_length_exceeded", param="input")  # fmt: skip
    if request.dimensions is not None and not 1 <= request.dimensions <= MAX_DIMENSIONS:
        raise ProviderError(400, f"dimensions must be from 1 to {MAX_DIMENSIONS}.", param="dimensions")
    return request


def embeddings_of(request: EmbeddingsRequest) -> dict[str, Any]:
    """The answer to a request."""
    dimensions = request.dimensions or DEFAULT_DIMENSIONS
    tokens = sum(max(1, len(text) // 4) for text in request.texts)
    data = []
    for index, text in enumerate(request.texts):
        vector: Any = word_vector(text, dimensions)
        if request.encoding_format == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def word_vector(text: str, dimensions: int) -> list[float]:
    """The vector of a text, of length 1. A text without a word has the first direction alone."""
    vector = [0.0] * dimensions
    for stem, count in Counter(content_stems(text) or words(text)).items():
        number = int.from_bytes(hashlib.blake2b(stem.encode(), digest_size=8).digest())
        vector[(number >> 1) % dimensions] += (1.0 if number & 1 else -1.0) * (1 + math.log(count))
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0:
        return [1.0, *vector[1:]]
    return [value / length for value in vector]
