"""The results of a run on disk: its cases, what came of each cell, and the grades it got, each exactly once.

SQLite in the run's folder. A cell's result is written once and stays; what is written is durable when a call returns, so that
a runner that is killed has lost nothing but what it had not written yet. One process writes (it holds the folder's lock),
any number read meanwhile. Readers take pages, in the order of the data set, and hold neither memory nor a snapshot between
them: a snapshot that lasted as long as a run would keep SQLite from ever clearing its journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

from msgspec import Struct
from msgspec.structs import replace

from serve_app.errors import ConfigError
from serve_app.evaluation.cases import Case
from serve_app.evaluation.results import CaseResult, CellKey, Grade
from serve_app.evaluation.run_database import RunDatabase, pack, unpack
from serve_app.evaluation.run_folder import RUN_DATABASE, RunLock, claim_folder
from serve_app.evaluation.run_meta import RunMeta

PAGE = 100
"""Rows read at a time."""
BATCH = 500
"""Cases written in one transaction."""


StoredGrade = tuple[CellKey, str, str, Grade | None]
"""A cell, the grader's name, what it was made by (a fingerprint of the grader's settings), and the grade; None says that the
grader had nothing to say."""


class GradedResult(Struct, frozen=True):
    """A result and the grades it has, by grader's name; a grader that had nothing to say is not among them."""

    result: CaseResult
    grades: dict[str, Grade]


class OpenCell(Struct, frozen=True):
    """A cell that there is no result of, and how many attempts it has had whose result was taken out."""

    case: Case
    key: CellKey
    earlier_attempts: int = 0


class Totals(Struct, frozen=True, kw_only=True):
    """What is there of a run. ``cost_microusd`` is that of the results, also of those that were taken out;
    ``grading_microusd`` that of their grades."""

    cases: int
    cells: int
    results: int
    failed: int
    cost_microusd: int
    grading_microusd: int


class RunStore:
    """A context manager. Its methods wait for the disk: on an event loop they belong into a thread; any may call them."""

    def __init__(self, folder: Path, database: RunDatabase, lock: RunLock | None, meta: RunMeta) -> None:
        """Use ``create`` or ``open``."""
        self.folder = folder
        self._database = database
        self._lock = lock
        self._meta = meta
        self._places = {name: place for place, name in enumerate(meta.names)}

    @classmethod
    def create(cls, folder: Path, meta: RunMeta, lock: RunLock | None = None) -> RunStore:
        """A new run's, open for writing. ``lock`` is the folder's, where it is held already; the store lets go of it. Raises
        ConfigError where the folder holds one already, or cannot be used."""
        lock = lock or claim_folder(folder)
        try:
            _make(folder / RUN_DATABASE, meta)
            database = RunDatabase(folder / RUN_DATABASE, writing=True)
        except BaseException:
            lock.release()
            raise
        return cls(folder, database, lock, meta)

    @classmethod
    def open(cls, folder: Path, *, writing: bool = False) -> RunStore:
        """A run there is. Raises ConfigError where the folder holds none, or where another process writes and this one would."""
        path = folder / RUN_DATABASE
        if not path.is_file():
            raise ConfigError(f"The folder {folder} holds no run; `parley eval run` makes one.")
        lock = RunLock(folder) if writing else None
        try:
            database = RunDatabase(path, writing=writing)
            ((body,),) = database.read("SELECT body FROM meta")
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(folder, database, lock, unpack(body, RunMeta))

    def close(self) -> None:
        """Idempotent."""
        self._database.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def meta(self) -> RunMeta:
        return self._meta

    def save_meta(self, meta: RunMeta) -> None:
        """Its configurations must be the ones there are: results name them by their place."""
        if meta.names != self._meta.names:
            raise ValueError("the configurations of a run do not change")
        self._database.write([("UPDATE meta SET body = ?", [(pack(meta),)])])
        self._meta = meta

    def totals(self) -> Totals:
        ((cases,),) = self._database.read("SELECT count(*) FROM cases")
        ((results, failed, cost),) = self._database.read("SELECT count(*), sum(failed), sum(cost_microusd) FROM result")
        ((grading,),) = self._database.read("SELECT sum(cost_microusd) FROM grade")
        return Totals(
            cases=cases,
            cells=cases * len(self._places) * self._meta.repeats,
            results=results,
            failed=failed or 0,
            cost_microusd=(cost or 0) + self._meta.dropped_microusd,
            grading_microusd=grading or 0,
        )

    def add_cases(self, cases: Iterable[Case]) -> int:
        """Appends cases in their order, those with a known id left out; returns how many there are then. Streams."""
        ((count,),) = self._database.read("SELECT coalesce(max(position) + 1, 0) FROM cases")
        batch: list[Case] = []
        for case in cases:
            batch.append(case)
            if len(batch) >= BATCH:
                count = self._add(batch, count)
                batch.clear()
        return self._add(batch, count)

    def _add(self, batch: Sequence[Case], count: int) -> int:
        rows: list[tuple[int, str, bytes]] = []
        for case in batch:
            if not self._database.read("SELECT 1 FROM cases WHERE case_id = ?", (case.id,)):
                rows.append((count + len(rows), case.id, pack(case)))
        self._database.write([("INSERT INTO cases VALUES (?, ?, ?)", rows)])
        return count + len(rows)

    def case(self, case_id: str) -> Case | None:
        rows = self._database.read("SELECT body FROM cases WHERE case_id = ?", (case_id,))
        return unpack(rows[0][0], Case) if rows else None

    def cases(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, Case]]:
        """Positions and cases from ``first`` to before ``end``."""
        while rows := self._database.read(
            "SELECT position, body FROM cases WHERE position >= ? AND position < coalesce(?, position + 1) "
            "ORDER BY position LIMIT ?",
            (first, end, PAGE),
        ):
            for position, body in rows:
                yield position, unpack(body, Case)
            first = rows[-1][0] + 1

    def save_results(self, results: Sequence[CaseResult]) -> int:
        """Writes those that were not there, all or none, durably; returns how many those were. A result that is there stays."""
        rows = [
            (
                self._position(result.key.case_id), self._places[result.key.configuration], result.key.repeat,
                int(result.failed), result.cost_microusd, pack(result),
            )
            for result in results
        ]  # fmt: skip
        return self._database.write([("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)])

    def result(self, key: CellKey) -> CaseResult | None:
        rows = self._database.read(
            "SELECT body FROM result WHERE position = (SELECT position FROM cases WHERE case_id = ?) "
            "AND configuration = ? AND repeat = ?",
            (key.case_id, self._places[key.configuration], key.repeat),
        )
        return unpack(rows[0][0], CaseResult) if rows else None

    def missing(self, first: int = 0, end: int | None = None) -> Iterator[OpenCell]:
        """Cells without a result, of the cases from ``first`` to before ``end``: of each case the baseline's first.

        What is written while this is read may still be handed out; what has been handed out is not again.
        """
        places = sorted(self._places.items(), key=lambda pair: (pair[0] != self._meta.baseline, pair[1]))
        wanted = [(name, place, repeat) for repeat in range(self._meta.repeats) for name, place in places]
        cases = self.cases(first, end)
        while page := list(islice(cases, PAGE)):
            between = (page[0][0], page[-1][0])
            done = set(
                self._database.read(
                    "SELECT position, configuration, repeat FROM result WHERE position BETWEEN ? AND ?", between
                )
            )
            earlier = {
                (position, place, repeat): attempts
                for position, place, repeat, attempts in self._database.read(
                    "SELECT * FROM earlier WHERE position BETWEEN ? AND ?", between
                )
            }
            for position, case in page:
                for name, place, repeat in wanted:
                    if (position, place, repeat) not in done:
                        key = CellKey(configuration=name, case_id=case.id, repeat=repeat)
                        yield OpenCell(case, key, earlier.get((position, place, repeat), 0))

    def results(self, configuration: str | None = None) -> Iterator[GradedResult]:
        """With their grades, in the order of the data set, then of the configurations, then of the repeats."""
        after = (-1, -1, -1)
        only = None if configuration is None else self._places[configuration]
        while rows := self._database.read(
            "SELECT position, configuration, repeat, body FROM result WHERE (position, configuration, repeat) > (?, ?, ?) "
            "AND configuration = coalesce(?, configuration) ORDER BY position, configuration, repeat LIMIT ?",
            (*after, only, PAGE),
        ):
            grades = self._grades_between(rows[0][0], rows[-1][0])
            for position, place, repeat, body in rows:
                yield GradedResult(unpack(body, CaseResult), grades.get((position, place, repeat), {}))
            after = rows[-1][:3]

    def pairs(self, baseline: str, configuration: str) -> Iterator[tuple[Case, GradedResult, GradedResult]]:
        """Cells of the same case and repeat that both have a result, in the order of the data set."""
        one, other = self._places[baseline], self._places[configuration]
        after = (-1, -1)
        while rows := self._database.read(
            "SELECT a.position, a.repeat, c.body, a.body, b.body FROM result a "
            "JOIN result b ON b.position = a.position AND b.repeat = a.repeat AND b.configuration = ? "
            "JOIN cases c ON c.position = a.position "
            "WHERE a.configuration = ? AND (a.position, a.repeat) > (?, ?) "
            "ORDER BY a.position, a.repeat LIMIT ?",
            (other, one, *after, PAGE),
        ):
            grades = self._grades_between(rows[0][0], rows[-1][0])
            for position, repeat, case, first, second in rows:
                yield (
                    unpack(case, Case),
                    GradedResult(unpack(first, CaseResult), grades.get((position, one, repeat), {})),
                    GradedResult(unpack(second, CaseResult), grades.get((position, other, repeat), {})),
                )
            after = rows[-1][:2]

    def of_case(self, case_id: str) -> list[GradedResult]:
        """All of a case's results."""
        rows = self._database.read(
            "SELECT r.position, configuration, repeat, r.body FROM result r JOIN cases c USING (position) "
            "WHERE case_id = ? ORDER BY configuration, repeat",
            (case_id,),
        )
        if not rows:
            return []
        grades = self._grades_between(rows[0][0], rows[0][0])
        return [GradedResult(unpack(row[3], CaseResult), grades.get(row[:3], {})) for row in rows]

    def drop_failed(self) -> int:
        """Takes out the results that failed, so that they are run again; returns how many. What they have cost stays counted."""
        failed = [
            (position, place, repeat, unpack(body, CaseResult).attempts)
            for position, place, repeat, body in self._database.read(
                "SELECT position, configuration, repeat, body FROM result WHERE failed = 1"
            )
        ]
        ((cost,),) = self._database.read("SELECT coalesce(sum(cost_microusd), 0) FROM result WHERE failed = 1")
        ((grading,),) = self._database.read(
            "SELECT coalesce(sum(g.cost_microusd), 0) FROM grade g JOIN result USING (position, configuration, repeat) "
            "WHERE failed = 1"
        )
        meta = replace(self._meta, dropped_microusd=self._meta.dropped_microusd + cost + grading)
        cells = [row[:3] for row in failed]
        baseline = self._places[self._meta.baseline]
        # Whoever had nothing to say to the others may have had nothing to compare them with.
        uncompared = [(position, repeat) for position, place, repeat in cells if place == baseline]
        self._database.write(
            [
                (
                    "INSERT INTO earlier VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET attempts = excluded.attempts",
                    failed,
                ),
                ("DELETE FROM grade WHERE position = ? AND configuration = ? AND repeat = ?", cells),
                ("DELETE FROM result WHERE position = ? AND configuration = ? AND repeat = ?", cells),
                ("DELETE FROM grade WHERE position = ? AND repeat = ? AND body IS NULL", uncompared),
                ("UPDATE meta SET body = ?", [(pack(meta),)]),
            ]
        )
        self._meta = meta
        return len(failed)

    def save_grades(self, grades: Sequence[StoredGrade]) -> None:
        """Replaces the grades that these graders had given to these cells."""
        rows = [
            (
                self._position(key.case_id), self._places[key.configuration], key.repeat, grader, made_by,
                None if grade is None or grade.passed is None else int(grade.passed),
                0 if grade is None else grade.usage.cost_microusd,
                None if grade is None else pack(grade),
            )
            for key, grader, made_by, grade in grades
        ]  # fmt: skip
        self._database.write([("INSERT OR REPLACE INTO grade VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)])

    def grades_of(self, case_id: str) -> list[StoredGrade]:
        """All of a case's."""
        names = self._meta.names
        return [
            (
                CellKey(configuration=names[place], case_id=case_id, repeat=repeat), grader, made_by,
                None if body is None else unpack(body, Grade),
            )
            for place, repeat, grader, made_by, body in self._database.read(
                "SELECT configuration, repeat, grader, made_by, g.body FROM grade g JOIN cases c USING (position) "
                "WHERE case_id = ? ORDER BY configuration, repeat, grader",
                (case_id,),
            )
        ]  # fmt: skip

    def graders(self) -> tuple[str, ...]:
        """The names of those that have given grades."""
        return tuple(row[0] for row in self._database.read("SELECT DISTINCT grader FROM grade ORDER BY grader"))

    def grade_counts(self) -> dict[str, int]:
        """For how many results each grader has said something, be it that it has nothing to say."""
        return dict(self._database.read("SELECT grader, count(*) FROM grade GROUP BY grader"))

    def keep_graders(self, names: Sequence[str]) -> None:
        """Takes out the grades of all others."""
        gone = [(name,) for name in self.graders() if name not in names]
        self._database.write([("DELETE FROM grade WHERE grader = ?", gone)])

    def ungraded(self, made_by: dict[str, str]) -> Iterator[tuple[Case, CaseResult, tuple[str, ...]]]:
        """Results that lack grades of ``made_by`` (a grader's name → what it is made by), and the names of those graders. As
        ``missing``: what has been handed out is not again."""
        after = (-1, -1, -1)
        while rows := self._database.read(
            "SELECT position, configuration, repeat, r.body, c.body FROM result r JOIN cases c USING (position) "
            "WHERE (position, configuration, repeat) > (?, ?, ?) "
            "ORDER BY position, configuration, repeat LIMIT ?",
            (*after, PAGE),
        ):
            done: dict[tuple[int, int, int], set[str]] = {}
            for position, place, repeat, grader, made in self._database.read(
                "SELECT position, configuration, repeat, grader, made_by FROM grade WHERE position BETWEEN ? AND ?",
                (rows[0][0], rows[-1][0]),
            ):
                if made_by.get(grader) == made:
                    done.setdefault((position, place, repeat), set()).add(grader)
            for *cell, result, case in rows:
                lacking = tuple(name for name in made_by if name not in done.get((cell[0], cell[1], cell[2]), ()))
                if lacking:
                    yield unpack(case, Case), unpack(result, CaseResult), lacking
            after = rows[-1][:3]

    def passes(self) -> tuple[int, int]:
        """How many grades passed, of how many that say so."""
        ((passed, of),) = self._database.read("SELECT coalesce(sum(passed), 0), count(passed) FROM grade")
        return passed, of

    def _grades_between(self, first: int, last: int) -> dict[tuple[int, int, int], dict[str, Grade]]:
        found: dict[tuple[int, int, int], dict[str, Grade]] = {}
        for position, place, repeat, grader, body in self._database.read(
            "SELECT position, configuration, repeat, grader, body FROM grade "
            "WHERE position BETWEEN ? AND ? AND body IS NOT NULL ORDER BY position, configuration, repeat, grader",
            (first, last),
        ):
            found.setdefault((position, place, repeat), {})[grader] = unpack(body, Grade)
        return found

    def _position(self, case_id: str) -> int:
        rows = self._database.read("SELECT position FROM cases WHERE case_id = ?", (case_id,))
        if not rows:
            raise KeyError(f"there is no case {case_id!r} in this run")
        return int(rows[0][0])


def _make(path: Path, meta: RunMeta) -> None:
    """The file is whole when it appears: whoever looks, or comes after a kill, finds a run or none."""
    beside = path.with_name(f".{path.name}")
    for left_over in (beside, beside.with_name(f"{beside.name}-wal"), beside.with_name(f"{beside.name}-shm")):
        left_over.unlink(missing_ok=True)
    database = RunDatabase(beside, writing=True)
    try:
        database.write([("INSERT INTO meta VALUES (1, ?)", [(pack(meta),)])])
    finally:
        database.close()  # which writes its log back and removes it
    beside.replace(path)
