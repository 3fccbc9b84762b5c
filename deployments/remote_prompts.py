"""The prompt builder's stage as the others see it: its calls are short and many, so they travel on the channel.

Serve sees none of them, and so waits for none when it stops a replica: what was asked of that one is asked of another.
"""

from __future__ import annotations

from typing import Any, cast

from deployments.handles import CALL_TIMEOUT_S, Handle, call
from deployments.peers import Peers
from deployments.pickled import pack, unpack
from serve_app.channel.port import Channel
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.errors import TooLarge
from serve_app.patience import patiently
from serve_app.prompting.port import PromptBuilder

PROMPTS = "prompts"


class RemotePrompts:
    """Implements ``PromptBuilder``."""

    def __init__(self, handle: Handle, channel: Channel) -> None:
        self._handle = handle
        self._peers = Peers(handle, channel, "prompt builder")

    async def build(self, request: PromptRequest) -> Prompt:
        return cast(Prompt, await self._ask("build", request))

    async def names(self, principal: Principal) -> tuple[str, ...]:
        return cast(tuple[str, ...], await self._ask("names", principal))

    async def versions(self) -> dict[str, tuple[str, ...]]:
        return cast(dict[str, tuple[str, ...]], await self._ask("versions"))

    async def title(self, content: str) -> Prompt:
        return cast(Prompt, await self._ask("title", content))

    async def _ask(self, method: str, *arguments: Any) -> Any:
        packed = pack((method, *arguments))
        try:
            return unpack(await patiently(lambda: self._peers.request(PROMPTS, packed, CALL_TIMEOUT_S)))
        except TooLarge:  # a history larger than a frame
            return unpack(await call(self._handle, "prompt builder", "answer", packed))


_METHODS = frozenset({"build", "names", "title", "versions"})


async def answer(prompts: PromptBuilder, packed: bytes) -> bytes:
    """A call as it arrives at the stage."""
    method, *arguments = unpack(packed)
    if method not in _METHODS:
        raise AttributeError(method)
    return pack(await getattr(prompts, method)(*arguments))
