"""The results of a run on disk: each once, whole, in order, and for one writer at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from serve_app.errors import ConfigError, Internal
from serve_app.evaluation.results import CaseResult, CellKey, Grade, TurnResult
from serve_app.evaluation.run_database import unpack
from serve_app.evaluation.run_folder import RUN_DATABASE
from serve_app.evaluation.run_store import PAGE, RunStore
from tests.unit.evaluation.runs import case, new_store, run_file


def result(
    configuration: str, number: int, answer: str = "yes", *, failed: bool = False, repeat: int = 0
) -> CaseResult:
    key = CellKey(configuration=configuration, case_id=f"case-{number:05d}", repeat=repeat)
    state = "failed" if failed else "completed"
    return CaseResult(key=key, turns=(TurnResult(turn_id="t", question="q", answer=answer, state=state),), attempts=2)  # type: ignore[arg-type]


def grade(name: str, score: float) -> Grade:
    return Grade(grader=name, score=score, passed=score >= 0.5)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return new_store(tmp_path / "run", run_file(), [case(number) for number in range(3)])


def test_a_result_that_is_there_stays_as_it_is_when_it_comes_again(store: RunStore) -> None:
    assert store.save_results([result("a", 1, "first")]) == 1
    assert store.save_results([result("a", 1, "second"), result("b", 1)]) == 1
    assert [one.result.answer for one in store.results()] == ["first", "yes"]
    assert store.totals().results == 2


def test_results_come_in_the_order_of_the_data_set_over_many_pages(tmp_path: Path) -> None:
    count = 2 * PAGE + 7
    store = new_store(tmp_path / "run", run_file(repeats=2), [case(number) for number in range(count)])
    for number in reversed(range(count)):
        store.save_results([result(name, number, repeat=repeat) for name in "ba" for repeat in (1, 0)])
    keys = [one.result.key for one in store.results()]
    assert keys == [
        CellKey(configuration=name, case_id=f"case-{number:05d}", repeat=repeat)
        for number in range(count) for name in "ab" for repeat in (0, 1)
    ]  # fmt: skip
    assert [one.result.key for one in store.results("b")] == [key for key in keys if key.configuration == "b"]
    pairs = list(store.pairs("a", "b"))
    assert len(pairs) == 2 * count
    assert all(one.result.key == replace(other.result.key, configuration="a") for _, one, other in pairs)
    assert list(store.missing()) == []


def test_the_missing_cells_are_those_without_a_result_and_the_baseline_is_first(tmp_path: Path) -> None:
    run = run_file(baseline="b")
    store = new_store(tmp_path / "run", run, [case(number) for number in range(4)])
    store.save_results([result("b", 0), result("a", 1), result("a", 2), result("b", 2)])
    assert [(cell.key.case_id[-1], cell.key.configuration) for cell in store.missing()] == [
        ("0", "a"), ("1", "b"), ("3", "b"), ("3", "a"),
    ]  # fmt: skip
    assert [cell.key.case_id[-1] for cell in store.missing(1, 2)] == ["1"]


def test_results_that_failed_can_be_taken_out_and_their_attempts_are_remembered(store: RunStore) -> None:
    store.save_results([result("a", 0, failed=True), result("b", 0)])
    store.save_grades([(result("a", 0).key, "facts", "x", grade("facts", 0.0))])
    assert store.drop_failed() == 1
    first = next(store.missing())
    assert (first.key.case_id, first.key.configuration, first.earlier_attempts) == ("case-00000", "a", 2)
    assert store.graders() == ()


def test_a_cell_lacks_the_grades_of_graders_that_are_new_or_were_changed(store: RunStore) -> None:
    store.save_results([result("a", 0), result("a", 1)])
    key = result("a", 0).key
    store.save_grades([(key, "facts", "v1", grade("facts", 1.0)), (key, "number", "v1", None)])
    wanted = {"facts": "v1", "number": "v1"}
    assert [(one.id, names) for one, _, names in store.ungraded(wanted)] == [("case-00001", ("facts", "number"))]
    assert [names for _, _, names in store.ungraded(wanted | {"facts": "v2"})] == [("facts",), ("facts", "number")]
    assert [list(one.grades) for one in store.results()] == [["facts"], []]
    assert store.passes() == (1, 1)


def test_grades_given_anew_take_the_place_of_the_old_ones(store: RunStore) -> None:
    store.save_results([result("a", 0)])
    key = result("a", 0).key
    store.save_grades([(key, "facts", "v1", grade("facts", 1.0)), (key, "old", "v1", grade("old", 1.0))])
    store.save_grades([(key, "facts", "v2", grade("facts", 0.0))])
    store.keep_graders(["facts"])
    (found,) = store.of_case("case-00000")
    assert {name: one.score for name, one in found.grades.items()} == {"facts": 0.0}


def test_a_batch_with_an_unknown_case_is_not_written_at_all(store: RunStore) -> None:
    with pytest.raises(KeyError):
        store.save_results([result("a", 0), result("a", 99)])
    assert store.totals().results == 0


def test_what_cannot_be_written_as_a_whole_is_not_written_in_part(store: RunStore) -> None:
    with pytest.raises(Internal, match="cannot be read or written"):
        store._database.write(
            [("INSERT INTO cases VALUES (?, ?, ?)", [(9, "new", b"{}")]), ("INSERT INTO nowhere VALUES (?)", [(1,)])]
        )
    assert store.case("new") is None
    assert store.save_results([result("a", 0)]) == 1


def test_cases_are_added_once_however_often_they_are_given(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", new_store(tmp_path / "other", run_file(), []).meta)
    assert store.add_cases(case(number) for number in range(700)) == 700
    assert store.add_cases(case(number) for number in range(1_200)) == 1_200
    assert [one.id for _, one in store.cases()] == [f"case-{number:05d}" for number in range(1_200)]


def test_large_results_are_kept_small_and_come_back_whole(store: RunStore) -> None:
    long = "a long answer " * 10_000
    store.save_results([result("a", 0, long)])
    (body,) = store._database.read("SELECT body FROM result")[0]
    assert len(body) < len(long) / 10
    assert unpack(body, CaseResult).answer == long


def test_one_process_writes_and_others_read_meanwhile(store: RunStore) -> None:
    program = (
        "import sys, pathlib\n"
        "from serve_app.evaluation.run_store import RunStore\n"
        "from serve_app.errors import ConfigError\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(RunStore.open(folder).totals().results)\n"
        "try:\n    RunStore.open(folder, writing=True)\nexcept ConfigError as error:\n    print(error.message)\n"
    )
    store.save_results([result("a", 0)])
    said = subprocess.run(
        [sys.executable, "-c", program, str(store.folder)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert said[0] == "1"
    assert "being written by another command" in said[1]
    store.close()
    RunStore.open(store.folder, writing=True).close()


def test_a_folder_without_a_run_or_with_another_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        RunStore.open(tmp_path)
    (tmp_path / RUN_DATABASE).write_bytes(b"this is no database at all, whatever its name may say" * 50)
    with pytest.raises(ConfigError, match="cannot be used for a run"):
        RunStore.open(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        RunStore.create(tmp_path, new_store(tmp_path / "other", run_file(), []).meta)


def test_a_run_that_was_killed_while_its_file_was_made_can_be_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".{RUN_DATABASE}").write_bytes(b"half of it")
    (folder / f".{RUN_DATABASE}-wal").write_bytes(b"and of its log")
    store = new_store(folder, run_file(), [case(1)])
    assert store.totals().cases == 1
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_a_run_written_by_another_version_is_refused(store: RunStore) -> None:
    store._database._connection.pragma("user_version", 99)
    store.close()
    with pytest.raises(ConfigError, match="another version of Parley"):
        RunStore.open(store.folder)


def test_the_configurations_of_a_run_never_change(store: RunStore) -> None:
    with pytest.raises(ValueError, match="do not change"):
        store.save_meta(replace(store.meta, configurations=store.meta.configurations[:1]))
    store.save_meta(replace(store.meta, ended="complete"))
    assert RunStore.open(store.folder).meta.ended == "complete"
