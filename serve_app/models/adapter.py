"""What a provider's adapter is to the gateway: one attempt at a call, by whatever the vendor's SDK needs."""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.models.port import TextSink


class ProviderAdapter(Protocol):
    """Calls one provider. Its client, with the pool of connections, lives until ``aclose``."""

    name: str
    """The provider's name in the models file."""

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        """One attempt at a generation of ``model``, which the provider calls ``upstream``; nothing is repeated here.

        Pieces arrive at ``on_text`` at most once per read; a ``Thought`` among them is no part of ``Generation.text``.
        ``max_output_tokens`` bounds what the request asks for. However the call ends, its response is closed before this
        returns.

        Raises InvalidInput, QuotaExceeded, UpstreamFailed (an answer that ended before the model did included),
        DeadlineExceeded. ``retry_after_s`` says when the provider wants to be asked again, where it said so.
        """

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        """The models the provider names. Raises UpstreamFailed, InvalidInput (no such address), DeadlineExceeded."""

    def with_key(self, api_key: str) -> ProviderAdapter:
        """The same provider by another key, on the same connections; they are closed with this one."""

    async def aclose(self) -> None:
        """Closes all connections; calls that still run fail."""
