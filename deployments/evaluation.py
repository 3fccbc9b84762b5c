"""The cells of a run by Ray Data: as many processes as wanted ask the running graph, on a laptop or on a cluster.

    run.sqlite ─► read tasks (on the driver's node) ─► actors with the same code as in one process ─► driver, which alone writes
       missing cells, a page at a time                   each with a handle of the Turns stage

Cells are read where the run's folder is, so that no other node needs it. An actor that dies is replaced, and its cells are asked
for again: their turns are found as they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as arrow
import ray
from ray import serve
from ray.data import ActorPoolStrategy, DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.remote_trials import STAGE, RemoteTrials
from serve_app.credentials import Secrets
from serve_app.embedded import provider_url
from serve_app.errors import Internal, NotFound, ParleyError
from serve_app.evaluation.assembly import cells_here, open_grading
from serve_app.evaluation.cells import CellDone, CellsHere, Spent
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.run_file import RunFile, run_file_of, run_file_yaml
from serve_app.evaluation.run_meta import RunMeta
from serve_app.evaluation.run_store import OpenCell, RunStore
from serve_app.settings import Settings

CELLS_PER_BLOCK = 32
MAX_READ_TASKS = 5_000
BLOCK_BYTES = 512 * 1024
"""Blocks stay small, so that results come back soon and the object store holds few."""
CALLS_PER_ACTOR = 2
"""Blocks that an actor has at once: while the last cells of one end, the next has begun."""
CPUS = 0.01
"""What is waited for is the graph; it is the graph that needs the cores."""
_AHEAD = 4


class CellsByRay:
    """Implements ``Cells``. This process must be attached to the graph."""

    def __init__(self, run: RunFile, settings: Settings, workers: int) -> None:
        self._run = run
        self._settings = settings
        self._workers = workers
        self._under_way = 0

    async def done(self, store: RunStore, stop: asyncio.Event, spent: Spent) -> AsyncIterator[Sequence[CellDone]]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Sequence[CellDone] | None] = asyncio.Queue(_AHEAD)
        over = threading.Event()

        def put(batch: Sequence[CellDone] | None) -> None:
            asyncio.run_coroutine_threadsafe(queue.put(batch), loop).result()

        def read() -> None:
            try:
                for batch in self._batches(store):
                    if over.is_set():
                        return
                    put(batch)
            finally:
                if not over.is_set():
                    put(None)

        self._under_way = self.limit
        reading = asyncio.create_task(asyncio.to_thread(read))
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                getting = asyncio.create_task(queue.get())
                await asyncio.wait({getting, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    break
                batch = getting.result()
                if batch is None:
                    await reading
                    return
                spent(sum(done.cost_microusd for done in batch))
                yield batch
        except ParleyError:
            raise
        except ray.exceptions.RayError as error:
            raise _told(error) from error
        finally:
            self._under_way = 0
            over.set()
            stopped.cancel()
            while not queue.empty():  # lets a reader go on that waits for room
                queue.get_nowait()
            await asyncio.gather(reading, stopped, return_exceptions=True)

    @property
    def under_way(self) -> int:
        return self._under_way

    @property
    def limit(self) -> int:
        """Of all workers together."""
        return _share(self._run, self._workers) * self._workers

    @property
    def refusals(self) -> int:
        """Nobody tells from there."""
        return 0

    def _batches(self, store: RunStore) -> Iterable[Sequence[CellDone]]:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = BLOCK_BYTES
        meta = store.meta
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        missing = MissingCells(store.folder, meta)
        cells = ray.data.read_datasource(
            missing,
            concurrency=1,  # reading is nothing beside what follows, and each reader is a process
            override_num_blocks=missing.pages,  # else Ray cuts each page into pieces
            ray_remote_args={"num_cpus": CPUS, "scheduling_strategy": here},
        )
        done = cells.map_batches(
            CellWorker,
            fn_constructor_args=(
                run_file_yaml(self._run), msgspec.json.encode(meta), _application(), self._settings,
                _share(self._run, self._workers),
            ),
            batch_size=CELLS_PER_BLOCK,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=self._workers, max_concurrent_calls_per_actor=CALLS_PER_ACTOR),
            num_cpus=CPUS,
        )  # fmt: skip
        decode = msgspec.json.Decoder(CellDone).decode
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            if batch.num_rows:
                yield [decode(packed) for packed in batch.column("done").to_pylist()]


class MissingCells(Datasource):
    """The cells of a run that have no result, as blocks with one packed cell a row."""

    def __init__(self, folder: Path, meta: RunMeta) -> None:
        self._folder = folder.resolve()
        self._cases = meta.cases
        cells_per_case = len(meta.configurations) * meta.repeats
        self._cases_per_page = max(1, CELLS_PER_BLOCK // cells_per_case, -(-self._cases // MAX_READ_TASKS))

    def get_name(self) -> str:
        return "MissingCells"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    @property
    def pages(self) -> int:
        return -(-self._cases // self._cases_per_page)

    def get_read_tasks(self, parallelism: int, *limits: Any, **more: Any) -> list[ReadTask]:  # noqa: ARG002
        """One for each page, whatever Ray thinks of: each is short, and one runs at a time."""
        step = self._cases_per_page
        return [ReadTask(_Read(self._folder, first, first + step), _UNKNOWN) for first in range(0, self._cases, step)]


class _Read(msgspec.Struct, frozen=True):
    """Reads the missing cells of a range of cases."""

    folder: Path
    first: int
    end: int

    def __call__(self) -> Iterable[arrow.Table]:
        with RunStore.open(self.folder) as store:
            packed = [msgspec.json.encode(cell) for cell in store.missing(self.first, self.end)]
        for start in range(0, len(packed), CELLS_PER_BLOCK):
            yield _table("cell", packed[start : start + CELLS_PER_BLOCK])


class CellWorker:
    """An actor of Ray Data. What it needs is made at its first batch, on the event loop that its batches are run on."""

    def __init__(self, run: str, meta: bytes, application: str, settings: Settings, at_once: int) -> None:
        self._run = run_file_of(run)
        self._meta = msgspec.json.decode(meta, type=RunMeta)
        self._application = application
        self._settings = settings
        self._at_once = at_once
        self._cells: asyncio.Task[CellsHere] | None = None
        self._open = AsyncExitStack()
        self._decode = msgspec.json.Decoder(OpenCell).decode

    async def __call__(self, batch: arrow.Table) -> AsyncIterator[dict[str, list[bytes]]]:
        if self._cells is None:
            self._cells = asyncio.create_task(self._begin())
        cells = await self._cells
        work = [asyncio.create_task(cells.run(self._decode(packed))) for packed in batch.column("cell").to_pylist()]
        try:
            for ended in asyncio.as_completed(work):
                yield {"done": [msgspec.json.encode(await ended)]}
        finally:
            for task in work:
                task.cancel()

    async def _begin(self) -> CellsHere:
        pace = Pace(max(1, min(self._run.concurrency.start, self._at_once)), self._at_once)
        graph = PacedGraph(RemoteTrials(serve.get_deployment_handle(STAGE, self._application)), pace)
        secrets = Secrets.from_environment()
        graders = [config for config in self._run.graders if config.type != "python"]  # their files are the driver's
        grading = await self._open.enter_async_context(
            open_grading(
                graders, run_id=self._meta.run_id, baseline=self._meta.baseline, tenant=self._run.tenant,
                graph=graph, settings=self._settings, secrets=secrets, folder=Path.cwd(),
                provider_url=provider_url(self._settings, secrets),
            )
        )  # fmt: skip
        return cells_here(self._run, self._meta, graph, pace, grading, self._at_once)


def _table(column: str, packed: list[bytes]) -> arrow.Table:
    return arrow.table({column: arrow.array(packed, type=arrow.binary())})


def _share(run: RunFile, workers: int) -> int:
    """How many turns a worker may have under way."""
    return max(1, run.concurrency.max // workers)


def _application() -> str:
    for name, application in serve.status().applications.items():
        if STAGE in application.deployments:
            return str(name)
    raise NotFound("The graph that ran is gone; start it again, then resume the run.")


def _told(error: BaseException) -> ParleyError:
    """What a worker said, out of what Ray has wrapped around it."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, ParleyError):
            break
        seen = getattr(seen, "cause", None) or seen.__cause__
    if isinstance(seen, ParleyError):
        return seen
    return Internal(f"The workers could not go on: {str(error).splitlines()[-1][:300] if str(error) else error!r}")


_UNKNOWN = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
