"""Calls of a stage: every way one can fail is a typed error, and nothing of a stage's inside is shown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    NodeDiedError,
    RayActorError,
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, RayServeException, ReplicaUnavailableError, RequestCancelledError

from deployments.handles import RemoteTools, call
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet
from serve_app.errors import (
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    ParleyError,
    QuotaExceeded,
    StageUnavailable,
)
from tests.unit.deployments.handles import FakeHandle, raised_remotely

ANN = Principal(tenant_id="acme", user_id="ann", roles=("sales",))


def failing(error: Exception) -> FakeHandle:
    async def method(*_: Any) -> Any:
        raise error

    return FakeHandle(method=method)


async def failure_of(error: Exception) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        await call(failing(error).handle, "store", "method")
    return caught.value


async def test_a_call_returns_what_the_stage_returned() -> None:
    async def double(value: int) -> int:
        return value * 2

    fake = FakeHandle(double=double)
    assert await call(fake.handle, "store", "double", 21) == 42
    assert fake.calls == [("double", 21)]


@pytest.mark.parametrize(
    "cause",
    [
        NotFound("There is no such turn."),
        Conflict("Another turn runs."),
        QuotaExceeded("Too much.", None, 3.5),
        InvalidInput("Bad.", False, None, [{"loc": "x"}]),
        StageUnavailable("The gateway's provider stage is away."),
    ],
)
async def test_what_a_stage_raised_on_purpose_arrives_as_it_was(cause: ParleyError) -> None:
    error = await failure_of(raised_remotely(cause))
    assert type(error) is type(cause)
    assert (error.message, error.retryable, error.retry_after_s, error.details) == (
        cause.message,
        cause.retryable,
        cause.retry_after_s,
        cause.details,
    )


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("secret detail"),
        TimeoutError("secret detail"),
        KeyError("secret detail"),
        OSError("secret detail"),
        ExceptionGroup("secret detail", [ValueError("secret detail")]),
    ],
)
async def test_a_crash_inside_a_stage_is_internal_and_shows_nothing_of_it(cause: Exception) -> None:
    error = await failure_of(raised_remotely(cause))
    assert type(error) is Internal
    assert "store" in error.message
    assert "secret" not in error.message
    assert error.details is None


@pytest.mark.parametrize(
    "gone",
    [
        RayActorError(),
        ActorDiedError(),
        ActorUnavailableError("connection reset", None),
        WorkerCrashedError(),
        NodeDiedError("node died"),  # type: ignore[no-untyped-call]
        RayError("something of Ray's"),
        RayServeException("no replica"),
        ReplicaUnavailableError("r1"),
        RequestCancelledError("req"),
        TaskCancelledError(),
    ],
)
async def test_every_way_a_replica_can_be_gone_is_retryable(gone: Exception) -> None:
    error = await failure_of(gone)
    assert type(error) is StageUnavailable
    assert error.retryable
    assert error.retry_after_s == 1.0


async def test_a_stage_that_is_full_is_overloaded() -> None:
    error = await failure_of(BackPressureError(num_queued_requests=9, max_queued_requests=9))
    assert type(error) is Overloaded
    assert error.retryable
    assert error.retry_after_s is not None


async def test_a_stage_that_does_not_answer_is_given_up_at_the_deadline_and_the_call_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(DeadlineExceeded, match=r"The store stage did not answer within 0\.05 seconds\."):
        await call(FakeHandle(hang=hang).handle, "store", "hang", timeout_s=0.05)
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_a_caller_that_goes_away_takes_its_call_along() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.timeout(5):
        calling = asyncio.create_task(call(FakeHandle(hang=hang).handle, "store", "hang"))
        await begun.wait()
        calling.cancel()
        await asyncio.wait({calling})
        assert calling.cancelled()
        await cancelled.wait()


async def test_rays_own_timeout_is_a_deadline_too() -> None:
    assert isinstance(await failure_of(GetTimeoutError("late")), DeadlineExceeded)


async def test_tools_pass_the_whole_call_and_wait_no_longer_than_its_deadline() -> None:
    async def call_tool(*args: Any) -> ToolResult:
        return ToolResult(tool_call_id="k", name="crm.find", ok=True, result=list(args[2:]))

    async def hang(*_: Any) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def tools_for(principal: Principal) -> ToolSet:
        return ToolSet(fingerprint=principal.user_id)

    async def servers() -> list[ToolServerState]:
        return [ToolServerState(name="crm", state="up")]

    wanted = ToolCall(tool_call_id="k", name="crm.find", arguments={})
    fake = FakeHandle(call=call_tool, tools_for=tools_for, servers=servers)
    tools = RemoteTools(fake.handle)
    assert (await tools.tools_for(ANN)).fingerprint == "ann"
    assert [server.name for server in await tools.servers()] == ["crm"]
    result = await tools.call(wanted, ANN, deadline=2e9, idempotency_key="key", request_id="req")
    assert result.result == [2e9, "key", "req"]
    assert fake.calls[-1][:3] == ("call", wanted, ANN)
    with pytest.raises(DeadlineExceeded):
        async with asyncio.timeout(5):
            await RemoteTools(FakeHandle(call=hang).handle).call(wanted, ANN, deadline=0, idempotency_key="key")
