"""Serve handles as far as the ports use them, without Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from ray.exceptions import RayTaskError

from deployments.handles import Handle

Method = Callable[..., Coroutine[Any, Any, Any]]


class FakeResponse:
    """The answer to come. As in Serve, whoever stops waiting has not stopped the callee: only ``cancel`` does."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.ensure_future(work)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self._task).__await__()

    def cancel(self) -> None:
        self._task.cancel()


class FakeHandle:
    """Calls the functions it is given by name. ``calls`` are method and arguments, in order."""

    def __init__(self, **methods: Method) -> None:
        self._methods = methods
        self._chosen = ""
        self.calls: list[tuple[Any, ...]] = []
        self.options_seen: list[dict[str, Any]] = []

    def options(self, **options: Any) -> FakeHandle:
        other = FakeHandle(**self._methods)
        other.calls, other.options_seen = self.calls, self.options_seen
        other._chosen = options.get("method_name", self._chosen)
        self.options_seen.append(options)
        return other

    def remote(self, *args: Any) -> FakeResponse:
        self.calls.append((self._chosen, *args))
        return FakeResponse(self._methods[self._chosen](*args))

    @property
    def handle(self) -> Handle:
        return cast(Handle, self)


def raised_remotely(cause: Exception) -> RayTaskError:
    """``cause`` as a replica's exception arrives: an instance of both kinds."""
    make: Any = RayTaskError  # Ray does not say its types
    error = make("Stage.method", f"Traceback: {cause!r}", cause, proctitle="replica", pid=1, ip="127.0.0.1")
    arrived = error.as_instanceof_cause()
    assert isinstance(arrived, RayTaskError)
    return arrived
