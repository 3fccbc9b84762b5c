"""Runs what a run folder lacks: its cells, then the grades that compare. Results are on the disk before they count.

missing cells ─► cells (here, or in many processes) ─► results and grades in batches ─► run store
                                                       └─ then, of all results: grades that are missing
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from serve_app.evaluation.cases import Case
from serve_app.evaluation.cells import Cells
from serve_app.evaluation.grading import Grading, Made, cost_of
from serve_app.evaluation.pool import worked_off
from serve_app.evaluation.progress import Phase, Progress, Rate
from serve_app.evaluation.results import CaseResult, CellKey
from serve_app.evaluation.run_meta import Ended
from serve_app.evaluation.run_store import RunStore

MICRO = 1_000_000


class Runner:
    """One go at a run. ``store`` is open for writing."""

    def __init__(
        self, store: RunStore, cells: Cells, grading: Grading, *, workers: int, max_cost_usd: float | None = None
    ) -> None:
        self._store = store
        self._cells = cells
        self._grading = grading
        self._workers = workers
        self._max_cost = None if max_cost_usd is None else round(max_cost_usd * MICRO)
        self._stop = asyncio.Event()
        self._ended: Ended = "complete"
        self._phase: Phase = "running"
        self._count()
        self._found = self._done
        self._passed, self._graded = store.passes()
        self._rate = Rate()
        self._began = time.monotonic()

    def stop(self) -> None:
        """Begins nothing more; what is under way still ends, and is kept."""
        self._end("interrupted")

    def progress(self) -> Progress:
        return Progress(
            phase=self._phase,
            done=self._done,
            total=self._total,
            failed=self._failed,
            rate_per_s=self._rate.per_s,
            left_s=self._rate.left_s(self._total - self._done),
            elapsed_s=time.monotonic() - self._began,
            cost_microusd=self._cost,
            passed=self._passed,
            graded=self._graded,
            under_way=self._cells.under_way,
            limit=self._cells.limit,
            refusals=self._cells.refusals,
            stopping=self._stop.is_set(),
        )

    def summary(self) -> Progress:
        """The whole of it, over all its time."""
        totals = self._store.totals()
        passed, graded = self._store.passes()
        elapsed_s = time.monotonic() - self._began
        return replace(
            self.progress(),
            phase="running",
            done=totals.results,
            total=totals.cells,
            failed=totals.failed,
            passed=passed,
            graded=graded,
            rate_per_s=(totals.results - self._found) / elapsed_s,
            elapsed_s=elapsed_s,
        )

    async def run(self) -> Ended:
        """All that is missing. Raises ParleyError where the graph or the disk cannot go on; what is done is kept."""
        meta = replace(self._store.meta, ended="running", finished_at=None)
        await asyncio.to_thread(self._store.save_meta, meta)
        ended: Ended = "failed"
        try:
            self._check_cost()
            await self._run_cells()
            await self._make_grades()
            ended = self._ended if await asyncio.to_thread(self._is_short) else "complete"
        except asyncio.CancelledError:
            ended = "interrupted"
            raise
        finally:
            meta = replace(
                meta,
                ended=ended,
                finished_at=time.time(),
                worked_s=meta.worked_s + time.monotonic() - self._began,
            )
            self._store.save_meta(meta)
        return ended

    async def grade(self) -> Ended:
        """Only the grades that are missing; whether all results are there stays as it was."""
        await self._make_grades()
        return self._ended

    async def _run_cells(self) -> None:
        async for batch in self._cells.done(self._store, self._stop, self._spend):
            results = [cell.result for cell in batch]
            saved = await asyncio.to_thread(self._store.save_results, results)
            await self._keep([made for cell in batch for made in cell.grades])
            if saved < len(results):
                await asyncio.to_thread(self._count)  # a worker that died had handed some over before
            else:
                self._done += len(results)
                self._failed += sum(result.failed for result in results)
            self._rate.add(len(batch))

    async def _make_grades(self) -> None:
        """Those that compare, and those that could not be made when their result came."""
        lacking = await asyncio.to_thread(self._count_ungraded)
        if not lacking or self._stop.is_set():
            return
        self._phase, self._done, self._total, self._rate = "grading", 0, lacking, Rate()
        async for batch in worked_off(self._ungraded(), self._grade, self._workers, self._stop):
            await self._keep([made for grades in batch for made in grades])
            self._done += len(batch)
            self._rate.add(len(batch))

    async def _grade(self, lacking: _Ungraded) -> list[Made]:
        grades = await self._grading.grades(lacking.case, lacking.result, lacking.names, lacking.baseline)
        self._spend(cost_of(grades))
        return grades

    async def _keep(self, grades: list[Made]) -> None:
        if not grades:
            return
        await asyncio.to_thread(self._store.save_grades, grades)
        for *_, grade in grades:
            if grade is not None:
                self._graded += grade.passed is not None
                self._passed += grade.passed is True

    def _ungraded(self) -> Iterator[_Ungraded]:
        """Results with the names of the graders they lack; one that compares waits for the baseline's result."""
        baseline, comparing = self._store.meta.baseline, self._grading.comparing
        for case, result, names in self._store.ungraded(self._grading.made_by):
            beside: CaseResult | None = None
            if result.key.configuration != baseline and not comparing.isdisjoint(names):
                key = CellKey(configuration=baseline, case_id=case.id, repeat=result.key.repeat)
                beside = self._store.result(key)
                if beside is None:
                    names = tuple(name for name in names if name not in comparing)
            if names:
                yield _Ungraded(case, result, names, None if beside is None or beside.failed else beside)

    def _count(self) -> None:
        totals = self._store.totals()
        self._done, self._total, self._failed = totals.results, totals.cells, totals.failed
        self._cost = totals.cost_microusd + totals.grading_microusd

    def _is_short(self) -> bool:
        """Whether stopping has left something out. A grade that could not be made is none of that."""
        totals = self._store.totals()
        return self._stop.is_set() and (totals.results < totals.cells or self._count_ungraded() > 0)

    def _count_ungraded(self) -> int:
        return sum(1 for _ in self._ungraded())

    def _spend(self, microusd: int) -> None:
        self._cost += microusd
        self._check_cost()

    def _check_cost(self) -> None:
        """Counts what has been spent, though it may not be written yet: a run stops where its money does."""
        if self._max_cost is not None and self._cost >= self._max_cost:
            self._end("budget")

    def _end(self, how: Ended) -> None:
        if not self._stop.is_set():
            self._ended = how
            self._stop.set()


class _Ungraded(Struct, frozen=True):
    case: Case
    result: CaseResult
    names: tuple[str, ...]
    baseline: CaseResult | None
