"""Trials over a handle of the Turns stage, and how a process of its own gets one.

    parley eval ──► this process as a Ray driver ──► Turns replica ─► its trials ─► their ends, by value
                     └─ of the graph on this machine, by what ``parley serve`` left in its data folder
                     └─ of the cluster at an address

Ray reads what it is told from the environment as it is imported, so a process is attached before anything in it imports Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from deployments.attachment import Attachment, read_attachment
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn
from serve_app.errors import NotFound, StageUnavailable
from serve_app.settings import Settings
from serve_app.turns.trials import LATE_S, TrialEnd

if TYPE_CHECKING:
    from deployments.handles import Handle

STAGE = "Turns"
LATEST_S = 2 * LATE_S
"""How long a call may take beyond its turn's deadline: longer than the stage itself waits."""
ASKED_BEFORE_S = 600.0
"""The same where the turn may have been accepted by an earlier call, with a later deadline of its own."""
TRIES = 3
AGAIN_S = 0.2

NO_GRAPH = "No graph runs here: start one with `parley serve` (or `make run`), or name a cluster with RAY_ADDRESS."


class RemoteTrials:
    """Implements ``TrialGraph`` over a handle of the Turns stage; calls raise as ``deployments.handles.call`` says."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def run(self, turn: NewTurn) -> TrialEnd:
        """A replica that dies under it is asked again, of another one: the turn is the same."""
        for tried in range(1, TRIES + 1):
            try:
                return cast(TrialEnd, await self._ask("run_trial", turn, timeout_s=_patience_s(turn)))
            except StageUnavailable:
                if tried == TRIES:
                    raise
            await asyncio.sleep(AGAIN_S * tried)
        raise AssertionError  # the last try returns or raises

    async def catalog(self) -> ModelCatalog:
        return cast(ModelCatalog, await self._ask("trial_offer", "catalog"))

    async def tools_for(self, principal: Principal) -> ToolSet:
        return cast(ToolSet, await self._ask("trial_offer", "tools_for", principal))

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        return cast(dict[str, tuple[str, ...]], await self._ask("trial_offer", "prompts"))

    async def aclose(self) -> None:
        """The graph is its owner's."""

    async def _ask(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        from deployments.handles import CALL_TIMEOUT_S, call
        from deployments.pickled import pack, unpack

        sent = pack(args)
        return unpack(
            await call(
                self._handle, "turns", method, sent, timeout_s=CALL_TIMEOUT_S if timeout_s is None else timeout_s
            )
        )


@asynccontextmanager
async def attached_graph(settings: Settings, address: str | None = None) -> AsyncIterator[RemoteTrials]:
    """The graph that runs over the settings' data folder, or that of the cluster at ``address`` (or ``RAY_ADDRESS``).

    This process is a Ray driver until the end. Raises NotFound, with a sentence that says what to do, where there is no graph,
    and StageUnavailable where there is one that cannot be reached.
    """
    found = _attachment(settings, address or os.environ.get("RAY_ADDRESS"))
    handle = await asyncio.to_thread(_connect, found)
    try:
        yield RemoteTrials(handle)
    finally:
        await asyncio.to_thread(_disconnect)


def _attachment(settings: Settings, address: str | None) -> Attachment:
    if address is not None:
        return Attachment(address=address)
    found = read_attachment(settings.path(settings.data_dir))
    if found is None:
        raise NotFound(NO_GRAPH)
    return found


def _connect(found: Attachment) -> Handle:
    """A handle of the graph's Turns stage."""
    os.environ.update(found.environment)
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    for noisy in ("ray", "ray.serve"):  # what they tell a driver of itself is nothing that people should read
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if not ray.is_initialized():
        try:
            ray.init(
                address=found.address,
                namespace="serve",
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:
            raise StageUnavailable(f"The graph at {found.address} cannot be reached: {error}") from error
    try:
        application = found.application or _application(serve)
        return serve.get_deployment_handle(STAGE, application)
    except (RayServeException, ValueError) as error:
        raise NotFound(NO_GRAPH) from error


def _application(serve: Any) -> str:
    """The application that has our stage."""
    for name, application in serve.status().applications.items():
        if STAGE in application.deployments:
            return str(name)
    raise NotFound(NO_GRAPH)


def _disconnect() -> None:
    import ray

    ray.shutdown()


def _patience_s(turn: NewTurn) -> float:
    return max(ASKED_BEFORE_S, turn.deadline - time.time() + LATEST_S)
