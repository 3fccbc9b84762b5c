"""The default of a provider that takes any name and was given none: the only model it lists, if it lists only one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from serve_app.errors import InvalidInput, ParleyError
from serve_app.models.config import OpenAIProviderConfig, ProviderConfig
from serve_app.models.routes import short

_RETRY_S = 30.0


class OnlyModel:
    """Asked for once; a failure is remembered for a while. ``some`` ends the sentence of who may be named instead."""

    def __init__(
        self, provider: ProviderConfig | None, listed: Callable[[], Awaitable[tuple[str, ...]]], some: str
    ) -> None:
        self._provider = provider
        self._listed = listed
        self._some = some
        self._found: str | None = None
        self._failure: ParleyError | None = None
        self._failed_at = float("-inf")
        self._asking = asyncio.Lock()

    async def name(self) -> str:
        """Raises InvalidInput where there is none or several, UpstreamFailed or DeadlineExceeded where nobody can tell."""
        provider = self._provider
        if not isinstance(provider, OpenAIProviderConfig):  # Azure lists what exists, not what is deployed
            raise InvalidInput(f"No default model is set: name one with model_id; {self._some}")
        async with self._asking:
            if self._found is not None:
                return self._found
            now = asyncio.get_running_loop().time()
            if self._failure is None or now - self._failed_at > _RETRY_S:
                self._failure = None
                try:
                    listed = await self._listed()
                    if len(listed) == 1:
                        self._found = listed[0]
                        return listed[0]
                    self._failure = InvalidInput(_no_default(provider, listed))
                except InvalidInput:  # it has no list of models
                    self._failure = InvalidInput(_no_default(provider, ()))
                except ParleyError as failure:
                    self._failure = failure
                self._failed_at = now
            kept = self._failure
        raise type(kept)(kept.message, kept.retryable, kept.retry_after_s)  # a fresh one: no shared traceback


def _no_default(provider: OpenAIProviderConfig, listed: tuple[str, ...]) -> str:
    count = "lists no models" if not listed else f"lists {len(listed)} models"
    examples = f" (such as {', '.join(short(name) for name in listed[:3])})" if listed else ""
    return (
        f"No default model is set, and the model provider {provider.name!r} {count}{examples}: name one with model_id, or "
        "set chat_default in the models file (OPENAI_CHAT_MODEL in the one that ships)."
    )
