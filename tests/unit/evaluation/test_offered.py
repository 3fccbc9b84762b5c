"""Tools that cases tell of and that nobody is offered are named before anything is run."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet, ToolSpec
from serve_app.domain.trial import RecordedCall
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.offered import only_not_offered, tools_not_offered
from serve_app.evaluation.run_start import asking
from tests.unit.evaluation.fake_graph import FakeGraph
from tests.unit.evaluation.runs import new_store, run_file


class Offering(FakeGraph):
    """What each role is offered."""

    async def tools_for(self, principal: Principal) -> ToolSet:
        names = {"sales": ("crm.find",), "people": ("hr.leave",)}
        offered = [name for role in principal.roles for name in names.get(role, ())]
        return ToolSet(tools=tuple(ToolSpec(name=name, description="", input_schema={}) for name in offered))


def a_case(number: int, role: str, recorded: str, expected: str) -> Case:
    return Case(
        id=str(number),
        role=role,
        messages=(
            CaseMessage(role="user", content="Who?"),
            CaseMessage(role="assistant", tool_calls=(RecordedCall(name=recorded),)),
        ),
        expected=Expected(tool_calls=(ExpectedCall(name=expected),)),
    )


async def test_each_tool_must_be_offered_to_somebody_whom_the_cases_are_asked_as(tmp_path: Path) -> None:
    run = run_file()
    cases = [a_case(1, "sales", "crm.find", "hr.leave"), a_case(2, "people", "hr.leave", "files.read")]
    store = new_store(tmp_path / "run", run, cases)
    assert await tools_not_offered(store, asking(run, store.meta), Offering()) == ("files.read",)
    assert await tools_not_offered(store, asking(run, store.meta), FakeGraph()) == (
        "crm.find",
        "files.read",
        "hr.leave",
    )


async def test_nobody_is_told_of_tools_where_none_are_used(tmp_path: Path) -> None:
    run = run_file()
    store = new_store(tmp_path / "run", run, [Case(id="1", messages=(CaseMessage(role="user", content="Who?"),))])
    assert await tools_not_offered(store, asking(run, store.meta), FakeGraph()) == ()


async def test_only_what_some_tool_or_server_is_called_can_be_offered_alone(tmp_path: Path) -> None:
    chosen = [{"name": "a", "only": ["crm", "hr.leave"]}, {"name": "b", "only": ["crn"]}, {"name": "c"}]
    run = run_file(configurations=chosen)
    cases = [a_case(1, "sales", "crm.find", "crm.find"), a_case(2, "people", "hr.leave", "hr.leave")]
    store = new_store(tmp_path / "run", run, cases)
    configurations = tuple(
        replace(one, only_tools=told.only)
        for one, told in zip(store.meta.configurations, run.configurations, strict=True)
    )
    store.save_meta(replace(store.meta, configurations=configurations))
    assert await only_not_offered(store, asking(run, store.meta), Offering()) == ("crn",)
