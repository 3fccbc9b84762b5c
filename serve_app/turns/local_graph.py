"""The graph in one process, for trials: every stage as it is in a running graph, over a store in a folder of its own.

    prompts · model gateway · tool executor ─► Turns stage ─► SQLite in the folder
    simulated provider, crm and hr beside them, where the settings bring stand-ins

No Ray, no sockets but those of the providers and tool servers. Whoever opens the folder again finds the turns of before.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.provider.script import load_script
from serve_app.companions.server import CompanionServer
from serve_app.companions.server import CompanionSettings as ServerSettings
from serve_app.credentials import Secrets
from serve_app.domain.ids import new_id
from serve_app.domain.turns import Owner
from serve_app.embedded import companions_of, provider_url, tool_variables
from serve_app.errors import ParleyError
from serve_app.files.connect import open_files
from serve_app.models.connect import connect as connect_models
from serve_app.models.connect import connect_quota
from serve_app.prompting.connect import open_prompts
from serve_app.rates.memory import MemoryRates
from serve_app.settings import Settings
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from serve_app.telemetry import MemoryMetrics, Metrics, logger
from serve_app.tools.config import load_servers
from serve_app.tools.connect import connect as connect_tools
from serve_app.turns.stage import TurnsStage
from serve_app.turns.trials import Trials

MAX_TRIALS = 256
"""Turns that run at once in this process at most."""
MAX_OWNERS = 10
"""Attempts at a step across owners: whoever evaluates is stopped and started again more often than replicas die."""
PRUNE_EVERY_S = 300.0
KEEP_S = 1_800.0
"""How long a turn that has ended stays in the folder. Whoever asked for it has kept its end long before; one that was cut off
asks again first."""

log = logger("turns.local_graph")


class LocalTrials(Trials):
    """``provider_url`` is where the simulated provider beside it listens, for what else asks one; None where there is none."""

    provider_url: str | None = None


@asynccontextmanager
async def local_trial_graph(
    settings: Settings,
    secrets: Secrets,
    folder: Path,
    *,
    metrics: Metrics | None = None,
    max_trials: int = MAX_TRIALS,
) -> AsyncIterator[LocalTrials]:
    """The graph in this process, its turns in ``folder/parley.db``. One at a time for a folder.

    ``settings`` are those of the graph that is meant: prompts, models, tools and limits of turns are theirs. Their store is left
    alone. The sample data of crm and hr are new each time, so that what live tools change is gone with the graph.

    Raises ConfigError for settings that cannot work and for a folder that is in use, and CompanionError where the stand-ins
    cannot start.
    """
    metrics = metrics or MemoryMetrics()
    async with AsyncExitStack() as stack:
        settings = await _with_companions(_alone(settings, folder, max_trials), secrets, stack)
        store = await SqliteStore.open(settings.data_dir, settings.store_limits)
        stack.push_async_callback(store.close)
        files = open_files(settings, secrets)
        stack.push_async_callback(files.close)
        variables = tool_variables(settings)
        servers = load_servers(settings.path(settings.mcp_servers), variables)
        descriptions = {server.name: server.description for server in servers}
        prompts = await open_prompts(settings, secrets, descriptions, files=files)
        stack.push_async_callback(prompts.close)
        await prompts.load()
        quota = connect_quota(settings, secrets, metrics, MemoryRates())
        if quota is not None:
            stack.push_async_callback(quota.aclose)
        models = await connect_models(settings, secrets, metrics, provider_url(settings, secrets), None, quota)
        stack.push_async_callback(models.aclose)
        tools = await connect_tools(settings, metrics, variables)
        stack.push_async_callback(tools.aclose)
        replica = new_id("local_")
        stage = TurnsStage(
            owner=Owner(replica_id=replica, endpoint=f"local://{replica}"),
            settings=settings,
            store=store,
            prompts=prompts,
            models=models,
            tools=tools,
            metrics=metrics,
        )
        stage.start()
        stack.push_async_callback(stage.stop)
        pruning = asyncio.create_task(_prune(store), context=contextvars.Context())
        stack.push_async_callback(_cancelled, pruning)
        trials = LocalTrials(
            store=store,
            stage=stage,
            prompts=prompts,
            models=models,
            tools=tools,
            lease_s=settings.turn.lease_s,
            alone=True,
        )
        trials.provider_url = provider_url(settings, secrets)
        yield trials


def _alone(settings: Settings, folder: Path, max_trials: int) -> Settings:
    """The settings with what is this process's own: its store, and how much it runs at once."""
    turn = settings.turn.model_copy(
        update={
            "max_running_batch": max_trials,
            "max_running": 2 * max_trials,
            "max_attempts": MAX_OWNERS,
            "durability": "exit",
        }
    )
    return settings.anchored().model_copy(update={"store": "local", "data_dir": folder.resolve(), "turn": turn})


async def _with_companions(settings: Settings, secrets: Secrets, stack: AsyncExitStack) -> Settings:
    """The settings with the port of the stand-ins, which are started here where the settings bring any."""
    only = companions_of(settings, secrets)
    if not only:
        return settings
    companions = settings.companions
    script = None if companions.script is None else load_script(settings.path(companions.script))
    provider = ProviderSettings() if script is None else ProviderSettings(script=script)
    server = CompanionServer(ServerSettings(host="127.0.0.1", port=0, only=only, provider=provider))
    await stack.enter_async_context(server)
    found = companions.model_copy(update={"host": "127.0.0.1", "port": server.port})
    return settings.model_copy(update={"companions": found})


async def _prune(store: Store) -> None:
    while True:
        await asyncio.sleep(PRUNE_EVERY_S)
        try:
            while await store.prune_events(older_than_s=KEEP_S):
                pass
        except ParleyError as error:
            log.warning("prune_failed", error=error.message)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
