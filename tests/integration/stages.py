"""Deployments that do one thing each, to see what becomes of it on the way between real Serve replicas."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from ray import serve

from deployments import handles
from deployments.handles import Handle, RemoteModels, RemoteTools, text_sink
from deployments.pickled import pack, unpack
from deployments.remote_turns import RemoteTurns
from serve_app import errors
from serve_app.channel.port import Address
from serve_app.channel.zeromq import ZeromqChannel
from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolCall
from serve_app.errors import ParleyError
from serve_app.settings import ChannelSettings

SECRET = "5" * 64
OTHER_SECRET = "6" * 64
PIECES = ("One ", "two ", "three ", "four.")


class Outcome(Struct, frozen=True, kw_only=True):
    """What a call came to, as its caller saw it."""

    error: str | None = None
    message: str = ""
    retryable: bool | None = None
    retry_after_s: float | None = None
    details: list[dict[str, Any]] | None = None
    shown: tuple[str, ...] = ()
    text: str = ""
    took_s: float = 0.0

    @classmethod
    def of(cls, error: Exception, **more: Any) -> Outcome:
        if not isinstance(error, ParleyError):
            return cls(error=f"not ours: {type(error).__name__}: {error}", **more)
        return cls(
            error=type(error).__name__,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
            details=error.details,
            **more,
        )


@serve.deployment(name="Callee", max_ongoing_requests=50, health_check_period_s=1, health_check_timeout_s=5)
class Callee:
    """Fails, or goes away, in every way a stage can."""

    async def __init__(self, folder: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._folder = Path(folder)
        self._channel = ZeromqChannel(ChannelSettings(), SECRET)
        self._stranger = ZeromqChannel(ChannelSettings(), OTHER_SECRET)
        await self._channel.start()
        await self._stranger.start()

    async def fail(self, name: str) -> None:
        raise getattr(errors, name)("A sentence.", True, 2.5, [{"field": "title"}])

    async def crash(self) -> None:
        raise ZeroDivisionError("secret detail")

    async def time_out(self) -> None:
        raise TimeoutError("the callee's own")

    async def sleep(self, seconds: float) -> str:
        """Says in a file what became of it."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            (self._folder / "sleep-cancelled").touch()
            raise
        return "slept"

    async def pid(self) -> int:
        return os.getpid()

    async def call(self, _call: ToolCall, *_: Any) -> None:
        """As a tool that takes long: whoever is told to kill this replica finds it at work."""
        (self._folder / "tool-running").touch()
        await asyncio.sleep(60)

    async def generate(self, packed: bytes, to: Address) -> bytes:
        request: ModelRequest = unpack(packed)
        """The first message says what goes wrong."""
        send = text_sink(self._channel, to)
        match request.messages[0].content:
            case "whole":
                send(PIECES)
            case "lost tail":
                send(PIECES[:2])
            case "gap":
                send([PIECES[0]])
                await asyncio.sleep(0.05)
                send([PIECES[2]])
            case "stranger":
                text_sink(self._stranger, to)(PIECES)
            case "die":
                send([PIECES[0]])
                await asyncio.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
            case "fail":
                send([PIECES[0]])
                raise errors.QuotaExceeded("The provider has had enough.")
        await asyncio.sleep(0.2)
        return pack(Generation(model_id="m", finish_reason="stop", text="".join(PIECES)))

    async def run_turn(self, key: TurnKey, _to: Address, _after_seq: int, _dead: Sequence[str]) -> bool:
        """Takes a while and leaves a file named after the turn."""
        (self._folder / f"started-{key.turn_id}").touch()
        try:
            await asyncio.sleep(6)
        except asyncio.CancelledError:
            (self._folder / f"cancelled-{key.turn_id}").touch()
            raise
        (self._folder / f"finished-{key.turn_id}").touch()
        return True


@serve.deployment(name="Caller", max_ongoing_requests=50, health_check_period_s=1, health_check_timeout_s=5)
class Caller:
    """Calls through the program's own ports, as a stage does, and tells what it saw."""

    async def __init__(self, callee: Handle) -> None:  # type: ignore[misc]  # Serve awaits it
        self._callee = callee
        self._channel = ZeromqChannel(ChannelSettings(), SECRET)
        await self._channel.start()

    async def pid(self) -> int:
        return os.getpid()

    async def call(self, method: str, args: tuple[Any, ...], timeout_s: float) -> Outcome:
        begun = time.monotonic()
        try:
            await handles.call(self._callee, "callee", method, *args, timeout_s=timeout_s)
        except Exception as error:
            return Outcome.of(error, took_s=time.monotonic() - begun)
        return Outcome(took_s=time.monotonic() - begun)

    async def tool(self, timeout_s: float) -> Outcome:
        tools = RemoteTools(self._callee)
        principal = Principal(tenant_id="t", user_id="u", roles=("r",))
        wish = ToolCall(tool_call_id="c1", name="a.b", arguments={})
        try:
            await tools.call(wish, principal, deadline=time.time() + timeout_s, idempotency_key="k")
        except Exception as error:
            return Outcome.of(error)
        return Outcome()

    async def generate(self, what: str) -> Outcome:
        shown: list[str] = []
        request = ModelRequest(messages=(ModelMessage(role="user", content=what),), deadline=time.time() + 20)
        try:
            generation = await RemoteModels(self._callee, self._channel).generate(request, shown.extend)
        except Exception as error:
            return Outcome.of(error, shown=tuple(shown))
        return Outcome(shown=tuple(shown), text=generation.text)

    async def start_turn(self, turn_id: str) -> None:
        """Starts a turn and returns: the request it was started in is over then."""
        conversation = ConversationKey(tenant_id="t", user_id="u", conversation_id="c")
        turns = RemoteTurns(self._callee, self._channel, 100)
        self._turns = turns  # its tasks live as long as it does
        await turns.run(TurnKey(conversation=conversation, turn_id=turn_id))
