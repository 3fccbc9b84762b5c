"""The ports over Serve handles: what one stage sees of another.

Calls are unary and carry control and lifetime; text and events flow on the channel beside them. Every call has a
deadline, and every way a replica can be gone becomes StageUnavailable, which is retryable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import msgspec
import structlog
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from deployments.append_frames import decode_batch, encode_batch
from serve_app.channel.port import Address, Channel
from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    NotFound,
    Overloaded,
    ParleyError,
    StageUnavailable,
    TooLarge,
    UpstreamFailed,
)
from serve_app.models.port import TextSink
from serve_app.storage.port import Store
from serve_app.telemetry import logger

STORE_PATIENCE_S = 25.0
"""How long a call waits for a store that is being replaced."""
CALL_TIMEOUT_S = 10.0
"""For calls that do no work of unknown length."""
GRACE_S = 1.0
"""How long frames may still be under way on the channel after the call they belong to has returned."""

Handle = DeploymentHandle[Any]

log = logger("handles")


async def call(handle: Handle, stage: str, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """Calls ``method`` of a stage. Raises what the stage raised if that is a ParleyError; see the module for the rest."""
    response = handle.options(method_name=method).remote(*args)
    timeout = asyncio.timeout(timeout_s)
    try:
        async with timeout:
            return await response
    except RayTaskError as error:  # first: it is also an instance of its cause's class, be that a TimeoutError
        cause = error.cause
        if isinstance(cause, ParleyError):
            raise cause from None
        raise _crashed(stage, method, error) from error
    except ParleyError:
        raise  # over gRPC an exception arrives bare
    except asyncio.CancelledError:
        # Without gRPC between replicas, cancelling whoever waits would leave the callee running.
        response.cancel()  # type: ignore[no-untyped-call]
        raise
    except TimeoutError as error:
        if not timeout.expired() and not isinstance(error, RayError):
            raise _crashed(stage, method, error) from error  # the callee's own
        response.cancel()  # type: ignore[no-untyped-call]
        raise DeadlineExceeded(f"The {stage} stage did not answer within {timeout_s:g} seconds.") from None
    except BackPressureError as error:
        raise Overloaded(f"The {stage} stage has as much work as it can take.", None, 1.0) from error
    except (RayActorError, RayServeException, RequestCancelledError, RayError) as error:
        raise StageUnavailable(f"The {stage} stage is being replaced; try again in a moment.", None, 1.0) from error
    except Exception as error:
        raise _crashed(stage, method, error) from error


def _crashed(stage: str, method: str, error: Exception) -> Internal:
    """A bug in the callee: its words are for the log."""
    log.error("stage_crashed", stage=stage, method=method, error=repr(error))
    return Internal(f"The {stage} stage failed; see its log.")


# -- store -----------------------------------------------------------------------------------------------------------


_DELETED_ONCE_IS_ENOUGH = frozenset(
    {
        *("delete_conversation", "delete_tenant", "delete_user", "delete_identity"),
        *("delete_provisioning", "delete_provider_key"),
    }
)
"""Not ``delete_record``: whoever has deleted a one-time record may use it, so it must have been this very caller."""


class _StageCalls:
    """Every method of a port that the store's stage serves, as a handle call."""

    def __init__(self, handle: Handle, port: type, method: str, *leading: str) -> None:
        self._handle = handle
        self._port = port
        self._method = method
        self._leading = leading

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self._port, name):
            raise AttributeError(name)

        def forward(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return self._call_patiently(name, args, kwargs)

        return forward

    async def _call_patiently(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A store that is being replaced is a pause. Every method can be repeated but a change under an etag."""
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        sent = (self._method, *self._leading, name, args, kwargs, request_id)
        give_up = time.monotonic() + STORE_PATIENCE_S
        wait_s = 0.05
        again = False
        while True:
            left_s = max(0.5, give_up - time.monotonic())
            try:
                return await call(self._handle, "store", *sent, timeout_s=left_s)
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


class _StoreCalls(_StageCalls):
    """The Store port; ``append`` goes over the channel."""

    def __init__(self, handle: Handle, channel: Channel | None) -> None:
        super().__init__(handle, Store, "invoke")
        self._channel = channel
        self._endpoint: str | None = None

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        # The one call made all the time, by every Turns replica: a frame costs a tenth of a handle call.
        if self._channel is None:
            return await self._append_by_handle(batch)
        if self._endpoint is None:
            self._endpoint = cast(str, await call(self._handle, "store", "channel_endpoint"))
        try:
            reply = await self._channel.request(self._endpoint, APPEND, encode_batch(batch))
        except StageUnavailable:
            self._endpoint = None  # the store may have been replaced, and listens elsewhere
            raise
        except TooLarge:
            return await self._append_by_handle(batch)  # rare: many large tool results at once
        return _REPLIES.decode(reply)

    async def _append_by_handle(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        return cast(list[AppendReply], await call(self._handle, "store", "invoke", "append", (list(batch),), {}, ""))

    async def close(self) -> None:
        """Closing is the stage's own business."""


APPEND = "store.append"
_PACK = msgspec.msgpack.Encoder()
_REPLIES: msgspec.msgpack.Decoder[list[AppendReply]] = msgspec.msgpack.Decoder(list[AppendReply])


def remote_store(handle: Handle, channel: Channel | None = None) -> Store:
    """The store behind ``handle``. With a channel, appends travel on it."""
    return cast(Store, _StoreCalls(handle, channel))


def remote_beside(handle: Handle, service: str, port: type) -> Any:
    """Another port that the store's stage serves beside the store; see ``StoreDeployment.invoke_beside``."""
    return _StageCalls(handle, port, "invoke_beside", service)


def serve_appends(store: Store, channel: Channel) -> None:
    """Answers appends that arrive on the channel."""

    async def append(payload: bytes) -> bytes:
        return _PACK.encode(await store.append(decode_batch(payload)))

    channel.handle(APPEND, append)


# -- models ----------------------------------------------------------------------------------------------------------


class RemoteModels:
    """The model gateway behind a handle: one unary call per generation, its text on the channel."""

    def __init__(self, handle: Handle, channel: Channel) -> None:
        self._handle = handle
        self._channel = channel

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        shown: list[str] = []
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def receive(items: list[bytes]) -> None:
            pieces = [item.decode() for item in items]
            shown.extend(pieces)
            try:
                on_text(pieces)
            except ParleyError as error:  # the caller wants no more of it
                if not refused.done():
                    refused.set_exception(error)

        inbox = self._channel.open(sink=receive)
        timeout_s = max(0.1, request.deadline - time.time()) + GRACE_S
        generating = asyncio.ensure_future(
            call(self._handle, "model gateway", "generate", request, inbox.address, timeout_s=timeout_s)
        )
        try:
            await asyncio.wait({generating, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                refused.result()
            generation = cast(Generation, await generating)
        finally:
            inbox.close()
            refused.cancel()
            generating.cancel()
            await asyncio.gather(generating, return_exceptions=True)
        self._heal("".join(shown), generation, on_text)
        return generation

    @staticmethod
    def _heal(shown: str, generation: Generation, on_text: TextSink) -> None:
        """The result has all of the text: what is still under way is shown now, and a gap fails the step."""
        if not generation.text.startswith(shown):
            raise UpstreamFailed("A piece of the answer was lost between stages.")
        rest = generation.text[len(shown) :]
        if rest:
            on_text([rest])

    async def catalog(self) -> ModelCatalog:
        return cast(ModelCatalog, await call(self._handle, "model gateway", "catalog"))


def text_sink(channel: Channel, to: Address) -> TextSink:
    """The gateway's end: sends pieces to whoever called."""

    def send(pieces: Sequence[str]) -> None:
        channel.send(to, ["".join(pieces).encode()])

    return send


# -- tools and prompts -----------------------------------------------------------------------------------------------


class RemoteTools:
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def tools_for(self, principal: Principal) -> ToolSet:
        return cast(ToolSet, await call(self._handle, "tool executor", "tools_for", principal))

    async def call(
        self, call_: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        timeout_s = max(0.1, deadline - time.time()) + GRACE_S
        return cast(
            ToolResult,
            await call(
                self._handle,
                "tool executor",
                "call",
                call_,
                principal,
                deadline,
                idempotency_key,
                request_id,
                timeout_s=timeout_s,
            ),
        )

    async def servers(self) -> list[ToolServerState]:
        return cast(list[ToolServerState], await call(self._handle, "tool executor", "servers"))


class RemotePrompts:
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def build(self, request: PromptRequest) -> Prompt:
        return cast(Prompt, await call(self._handle, "prompt builder", "build", request))

    async def title(self, content: str) -> Prompt:
        return cast(Prompt, await call(self._handle, "prompt builder", "title", content))
