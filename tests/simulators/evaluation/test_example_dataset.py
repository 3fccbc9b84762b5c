"""The example data set: its script gives it byte for byte, and what is expected in it is what the example data says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from serve_app.companions.crm.records import CrmRecords
from serve_app.companions.hr.records import HrRecords
from serve_app.companions.sample_data import open_crm, open_hr
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.example.__main__ import example_cases
from serve_app.evaluation.run_file import load_run_file
from serve_app.prompting.library import PromptLibrary
from serve_app.settings import PROJECT_ROOT

SHIPPED = PROJECT_ROOT / "configs" / "eval"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(open_dataset(SHIPPED / "crm_hr.jsonl").cases())


@pytest.fixture
def crm() -> Iterator[CrmRecords]:
    with closing(CrmRecords(open_crm(None))) as records:
        yield records


@pytest.fixture
def hr() -> Iterator[HrRecords]:
    with closing(HrRecords(open_hr(None))) as records:
        yield records


async def test_the_script_gives_the_file_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    write_cases(tmp_path / "again.jsonl", await example_cases())
    assert (tmp_path / "again.jsonl").read_bytes() == (SHIPPED / "crm_hr.jsonl").read_bytes()


def test_there_is_enough_of_every_kind(cases: list[Case]) -> None:
    kinds = Counter(case.tags[0] for case in cases)
    assert len(cases) >= 120
    assert set(kinds) == {
        "lookup", "figure", "list", "follow-up", "two-tools", "not-found", "update", "access", "off-topic", "ask-back",
        "small-talk",
    }  # fmt: skip
    assert min(kinds.values()) >= 6


def test_sums_are_those_of_the_example_data(cases: list[Case], crm: CrmRecords) -> None:
    sums = [case for case in cases if "sum" in case.tags]
    assert sums
    for case in sums:
        asked = re.fullmatch(r"How much are all opportunities of (.+) worth together\?", case.messages[-2].content)
        assert asked
        assert case.expected.number == sum(one.amount for one in crm.opportunities_of(asked[1], None).opportunities)


def test_leave_is_that_of_the_example_data(cases: list[Case], hr: HrRecords) -> None:
    asked = [
        case for case in cases if case.tags[0] == "figure" and "How many vacation days" in case.messages[-2].content
    ]
    assert asked
    for case in asked:
        (call,) = case.messages[-1].tool_calls
        assert case.expected.number == hr.leave_balance(call.result["employee"]).remaining_days


def test_nothing_is_asked_about_that_another_case_changes(cases: list[Case]) -> None:
    changed = {call.arguments["id"] for case in cases for call in case.messages[-1].tool_calls
               if call.name == "crm.update_opportunity" and call.ok and call.arguments}  # fmt: skip
    assert len(changed) == 12
    others = [case for case in cases if case.tags[0] != "update"]
    assert not [case.id for case in others if any(one in str(case.messages) for one in changed)]


def test_recorded_calls_are_the_expected_ones_where_the_assistant_got_it_right(cases: list[Case]) -> None:
    for case in cases:
        if case.tags[0] in ("lookup", "figure", "list", "two-tools", "update", "not-found"):
            made = [(call.name, call.arguments) for call in case.messages[-1].tool_calls]
            assert made == [(call.name, call.arguments) for call in case.expected.tool_calls or ()], case.id


@pytest.mark.parametrize("name", ["crm_hr.yaml", "smoke.yaml"])
def test_the_shipped_run_files_can_be_used(name: str) -> None:
    run = load_run_file(SHIPPED / name)
    dataset = open_dataset(run.dataset)
    assert {tag for grader in run.graders for tag in grader.tags} <= set(dataset.tags)
    assert {*run.sample.tags, *run.sample.without} <= set(dataset.tags)
    targets = [*run.gate.min_score, *run.gate.min_pass_rate]
    assert {target.partition("@")[0] for target in targets} <= {grader.name for grader in run.graders}


def test_the_candidate_that_ships_is_a_draft_and_the_first_version_in_use() -> None:
    library = PromptLibrary(PROJECT_ROOT / "prompts")
    assert library.own("assistant").version == "v1"
    assert library.find("assistant", (), "v2").draft
