"""Which graph an evaluation runs on: the one of this machine or a cluster, or one in the evaluation's own process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from serve_app.companions.errors import CompanionError
from serve_app.credentials import Secrets
from serve_app.embedded import provider_url
from serve_app.errors import ConfigError, NotFound
from serve_app.settings import Settings
from serve_app.turns.trials import TrialGraph

GraphChoice = Literal["auto", "local", "running"]

NICE = 10
"""How far this process steps back for a graph that runs: grading may share a machine with live turns."""


class FoundGraph(Struct, frozen=True):
    """``where`` is ``running`` or ``local``. ``provider_url`` is that of its simulated provider; None where it has none."""

    graph: TrialGraph
    where: str
    provider_url: str | None


@asynccontextmanager
async def chosen_graph(
    choice: GraphChoice,
    settings: Settings,
    secrets: Secrets,
    folder: Path,
    max_turns: int,
    say: Callable[[str], None],
) -> AsyncIterator[FoundGraph]:
    """``auto``: the one that runs, else one in this process over a store in ``folder``.

    Raises ConfigError where a graph in this process cannot be had, NotFound where a running one was asked for and there is none.
    """
    if choice != "local":
        from deployments.remote_trials import attached_graph

        attached = attached_graph(settings)
        try:
            graph = await attached.__aenter__()
        except NotFound:
            if choice == "running":
                raise
        else:
            os.nice(NICE)
            try:
                say("The cases are run by the graph that runs.")
                yield FoundGraph(graph, "running", provider_url(settings, secrets))
            finally:
                await attached.__aexit__(None, None, None)
            return
    say("The cases are run by a graph in this process." if choice == "local" else _NONE_RUNS)
    from serve_app.turns.local_graph import local_trial_graph

    try:
        async with local_trial_graph(settings, secrets, folder, max_trials=max_turns) as local:
            yield FoundGraph(local, "local", local.provider_url)
    except CompanionError as error:
        raise ConfigError(str(error)) from error


_NONE_RUNS = "No graph runs on this machine; the cases are run by one in this process."
