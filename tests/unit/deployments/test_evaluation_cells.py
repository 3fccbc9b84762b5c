"""The cells of a run as Ray Data reads them, and what is told where its workers cannot go on. No cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec
from ray.exceptions import RayTaskError

from deployments.evaluation import CELLS_PER_BLOCK, MissingCells, _told
from serve_app.errors import Internal, Overloaded
from serve_app.evaluation.results import CaseResult, CellKey, TurnResult
from serve_app.evaluation.run_store import OpenCell
from tests.unit.evaluation.runs import case, new_store, run_file


def test_the_pages_together_have_every_missing_cell_once_and_none_is_large(tmp_path: Path) -> None:
    run = run_file(repeats=3)
    store = new_store(tmp_path / "run", run, [case(number) for number in range(50)])
    there = [CellKey(configuration="a", case_id=f"case-{number:05d}", repeat=1) for number in range(0, 50, 2)]
    store.save_results([CaseResult(key=key, turns=(TurnResult(turn_id="t", question="q"),)) for key in there])
    source = MissingCells(store.folder, store.meta)
    tasks = source.get_read_tasks(1)
    assert len(tasks) == source.pages == 10  # five cases of six cells each
    blocks = [block for task in tasks for block in task()]
    assert max(block.num_rows for block in blocks) <= CELLS_PER_BLOCK
    cells = [msgspec.json.decode(one, type=OpenCell) for block in blocks for one in block.column("cell").to_pylist()]
    assert [cell.key for cell in cells] == [cell.key for cell in store.missing()]
    assert len(cells) == 300 - 25


def test_a_run_of_a_million_cases_has_no_million_pages(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run", run_file(), [])
    meta = msgspec.structs.replace(store.meta, cases=1_000_000)
    assert MissingCells(store.folder, meta).pages == 5_000


def test_what_a_worker_said_is_told_and_not_what_ray_has_wrapped_around_it() -> None:
    said = Overloaded("The graph has taken no turn for 10 minutes.", False)
    wrapped = RuntimeError("a worker failed")
    wrapped.__cause__ = RayTaskError("run", "traceback", said)  # type: ignore[no-untyped-call]
    assert _told(wrapped) is said
    unknown = _told(RuntimeError("line one\nthe reason"))
    assert isinstance(unknown, Internal)
    assert "the reason" in unknown.message
