"""The cells of a run at work: whoever runs them gives them back with the grades that need nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from serve_app.evaluation.cell_runner import CellRunner
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.grading import Grading, Made, cost_of
from serve_app.evaluation.pool import worked_off
from serve_app.evaluation.results import CaseResult
from serve_app.evaluation.run_store import OpenCell, RunStore

Spent = Callable[[int], None]
"""Told millionths of a US dollar."""


class CellDone(Struct, frozen=True):
    """What came of a cell, with the grades that need nothing else."""

    result: CaseResult
    grades: list[Made]

    @property
    def cost_microusd(self) -> int:
        return self.result.cost_microusd + cost_of(self.grades)


class Cells(Protocol):
    """Whoever runs the cells of a run."""

    def done(self, store: RunStore, stop: asyncio.Event, spent: Spent) -> AsyncIterator[Sequence[CellDone]]:
        """Runs all that are missing, in whatever order, and gives them in batches. Once ``stop`` is set it begins no more.
        ``spent`` is told what each has cost, as soon as that is known. Raises ParleyError where it cannot go on."""

    @property
    def under_way(self) -> int: ...

    @property
    def limit(self) -> int: ...

    @property
    def refusals(self) -> int: ...


class _Paced:
    """What ``Cells`` say of how many are under way, where one pace decides it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def under_way(self) -> int:
        return self._pace.under_way

    @property
    def limit(self) -> int:
        return self._pace.limit

    @property
    def refusals(self) -> int:
        return self._pace.refusals


class CellsHere(_Paced):
    """Implements ``Cells`` in this process."""

    def __init__(self, runner: CellRunner, grading: Grading, pace: Pace, workers: int) -> None:
        super().__init__(pace)
        self._runner = runner
        self._grading = grading
        self._workers = workers

    def done(self, store: RunStore, stop: asyncio.Event, spent: Spent) -> AsyncIterator[Sequence[CellDone]]:
        async def run(cell: OpenCell) -> CellDone:
            done = await self.run(cell)
            spent(done.cost_microusd)
            return done

        return worked_off(store.missing(), run, self._workers, stop)

    async def run(self, cell: OpenCell) -> CellDone:
        result = await self._runner.run(cell.case, cell.key, cell.earlier_attempts)
        return CellDone(
            result, await self._grading.grades(cell.case, result, self._grading.at_once(cell.key.configuration))
        )


class NoCells(_Paced):
    """Implements ``Cells`` where only grades are made."""

    async def done(self, _store: RunStore, _stop: asyncio.Event, _spent: Spent) -> AsyncIterator[Sequence[CellDone]]:
        none: tuple[Sequence[CellDone], ...] = ()
        for batch in none:
            yield batch
