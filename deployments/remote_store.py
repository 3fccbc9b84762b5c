"""The store's stage as the others see it: every method of its ports a call on the channel.

A frame costs a tenth of a handle call, and a turn asks the store several times. What no frame can hold goes by handle, and so
does everything where there is no channel. A store that is being replaced is a pause: calls wait for the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

import msgspec
import structlog

from deployments.append_frames import decode_batch, encode_batch
from deployments.handles import Handle, call
from deployments.peers import Peers
from deployments.pickled import pack, unpack
from serve_app.channel.port import Channel
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.errors import NotFound, StageUnavailable, TooLarge
from serve_app.stage_load import StageLoad
from serve_app.storage.port import Store

STORE_PATIENCE_S = 25.0
"""How long a call waits for a store that is being replaced."""

APPEND = "store.append"
INVOKE = "store.invoke"

Invoke = Callable[[str, str, tuple[Any, ...], dict[str, Any], str], Awaitable[Any]]
"""Calls a method of a service: the store itself is the one without a name."""

_DELETED_ONCE_IS_ENOUGH = frozenset(
    {
        *("delete_conversation", "delete_tenant", "delete_user", "delete_identity"),
        *("delete_provisioning", "delete_provider_key"),
    }
)
"""Not ``delete_record``: whoever has deleted a one-time record may use it, so it must have been this very caller."""

_PACK = msgspec.msgpack.Encoder()
_REPLIES: msgspec.msgpack.Decoder[list[AppendReply]] = msgspec.msgpack.Decoder(list[AppendReply])


class _Asked:
    """The store's stage: by the channel where there is one and a frame holds it, else by handle."""

    def __init__(self, handle: Handle, channel: Channel | None) -> None:
        self.handle = handle
        self._peers = None if channel is None else Peers(handle, channel, "store")

    async def request(self, name: str, payload: bytes, timeout_s: float | None = None) -> bytes | None:
        """The answer; None where it has to go by handle."""
        if self._peers is None:
            return None
        try:
            return await self._peers.request(name, payload, timeout_s)
        except TooLarge:
            return None


class _StageCalls:
    """Every method of a port that the store's stage serves."""

    def __init__(self, asked: _Asked, port: type, service: str) -> None:
        self._asked = asked
        self._port = port
        self._service = service

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self._port, name):
            raise AttributeError(name)

        def forward(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return self._call_patiently(name, args, kwargs)

        return forward

    async def _call_patiently(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A store that is being replaced is a pause. Every method can be repeated but a change under an etag."""
        give_up = time.monotonic() + STORE_PATIENCE_S
        wait_s = 0.05
        again = False
        while True:
            left_s = max(0.5, give_up - time.monotonic())
            try:
                return await self._call(name, args, kwargs, left_s)
            except StageUnavailable:
                if kwargs.get("if_match") is not None or time.monotonic() + wait_s > give_up:
                    raise
            except NotFound:
                if again and name in _DELETED_ONCE_IS_ENOUGH:
                    return None  # the call that got no answer had deleted it
                raise
            again = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 1.0)

    async def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], timeout_s: float) -> Any:
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        sent = (self._service, name, args, kwargs, request_id)
        reply = await self._asked.request(INVOKE, pack(sent), timeout_s)
        if reply is not None:
            return unpack(reply)
        return await call(self._asked.handle, "store", "invoke", *sent, timeout_s=timeout_s)


class _StoreCalls(_StageCalls):
    """The Store port; ``append``, the one call made all the time, has frames of its own."""

    def __init__(self, asked: _Asked) -> None:
        super().__init__(asked, Store, "")

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        reply = await self._asked.request(APPEND, encode_batch(batch))
        if reply is not None:
            return _REPLIES.decode(reply)
        # Rare: many large tool results at once.
        sent: tuple[Any, ...] = ("", "append", (list(batch),), {}, "")
        return cast(list[AppendReply], await call(self._asked.handle, "store", "invoke", *sent))

    async def close(self) -> None:
        """Closing is the stage's own business."""


def remote_store(handle: Handle, channel: Channel | None = None) -> Store:
    """The store behind ``handle``. With a channel, calls travel on it."""
    return cast(Store, _StoreCalls(_Asked(handle, channel)))


def remote_beside(handle: Handle, service: str, port: type, channel: Channel | None = None) -> Any:
    """Another port that the store's stage serves beside the store; see ``StoreDeployment.invoke``."""
    return _StageCalls(_Asked(handle, channel), port, service)


def serve_appends(store: Store, channel: Channel, load: StageLoad) -> None:
    """Answers appends that arrive on the channel, and counts them."""

    async def append(payload: bytes) -> bytes:
        with load.running():
            return _PACK.encode(await store.append(decode_batch(payload)))

    channel.handle(APPEND, append)


def serve_calls(invoke: Invoke, channel: Channel, load: StageLoad) -> None:
    """Answers all other calls that arrive on the channel, and counts them."""

    async def answer(payload: bytes) -> bytes:
        with load.running():
            service, name, args, kwargs, request_id = unpack(payload)
            return pack(await invoke(service, name, args, kwargs, request_id))

    channel.handle(INVOKE, answer)
