"""The model gateway: one way to call any model.

A call is one coroutine that stays open until the generation ends and returns its result; the text arrives meanwhile
in batches at a sink. That is also its shape between replicas, where the sink's batches travel on a channel. Cancelling
the coroutine closes the provider's stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest

TextSink = Callable[[Sequence[str]], None]
"""Takes pieces of text in order. Called at most once per read of the provider's socket; it must not block."""


class ModelGateway(Protocol):
    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        """Runs one generation.

        Raises InvalidInput for an unknown model or a request the provider refuses, QuotaExceeded, Overloaded,
        DeadlineExceeded, UpstreamFailed (a stream that ended without a finish reason included). Retries happen inside,
        before the first piece only, and so does the change to another model, which ``Generation.warning`` tells of. A model
        that has been failing is not called for a moment: then UpstreamFailed comes at once, with ``retry_after_s``.
        """

    async def catalog(self) -> ModelCatalog:
        """The models that can be asked for."""
