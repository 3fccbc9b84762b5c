"""The ports over Serve handles: what one stage sees of another.

Calls are unary and carry control and lifetime; text and events flow on the channel beside them. Every call has a
deadline, and every way a replica can be gone becomes StageUnavailable, which is retryable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from deployments.asked import asked_by_handle
from deployments.pickled import pack, unpack
from serve_app.channel.port import Address, Channel
from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest, Thought
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet
from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    ParleyError,
    StageUnavailable,
    UpstreamFailed,
)
from serve_app.models.pieces import decode_pieces, encode_pieces
from serve_app.models.port import TextSink
from serve_app.telemetry import logger

CALL_TIMEOUT_S = 10.0
"""For calls that do no work of unknown length."""
GRACE_S = 1.0
"""How long frames may still be under way on the channel after the call they belong to has returned."""

Handle = DeploymentHandle[Any]

log = logger("handles")


async def call(handle: Handle, stage: str, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """Calls ``method`` of a stage. Raises what the stage raised if that is a ParleyError; see the module for the rest."""
    asked = asked_by_handle(stage, method)
    if asked is None:
        return await _call(handle, stage, method, args, timeout_s)
    with asked.running():
        return await _call(handle, stage, method, args, timeout_s)


async def _call(handle: Handle, stage: str, method: str, args: tuple[Any, ...], timeout_s: float) -> Any:
    response = _bound(handle, method).remote(*args)
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


_methods: WeakKeyDictionary[Handle, dict[str, Handle]] = WeakKeyDictionary()


def _bound(handle: Handle, method: str) -> Handle:
    """The handle of one method, made once: Serve builds a new object for each that it is asked for."""
    methods = _methods.setdefault(handle, {})
    bound = methods.get(method)
    if bound is None:
        bound = methods[method] = handle.options(method_name=method)
    return bound


def _crashed(stage: str, method: str, error: Exception) -> Internal:
    """A bug in the callee: its words are for the log."""
    log.error("stage_crashed", stage=stage, method=method, error=repr(error))
    return Internal(f"The {stage} stage failed; see its log.")


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
            pieces = decode_pieces(items)
            shown.extend(piece for piece in pieces if not isinstance(piece, Thought))
            try:
                on_text(pieces)
            except ParleyError as error:  # the caller wants no more of it
                if not refused.done():
                    refused.set_exception(error)

        inbox = self._channel.open(sink=receive)
        timeout_s = max(0.1, request.deadline - time.time()) + GRACE_S
        generating = asyncio.ensure_future(
            call(self._handle, "model gateway", "generate", pack(request), inbox.address, timeout_s=timeout_s)
        )
        try:
            await asyncio.wait({generating, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                refused.result()
            generation: Generation = unpack(await generating)
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
        channel.send(to, encode_pieces(pieces))

    return send


# -- tools -----------------------------------------------------------------------------------------------


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
