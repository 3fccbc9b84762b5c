"""A data set is looked through once: what is wrong is told with its line, and what is right is read one case at a time."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.trial import RecordedCall
from serve_app.errors import ConfigError
from serve_app.evaluation import case_files, dataset
from serve_app.evaluation.case_files import read_records, write_cases
from serve_app.evaluation.case_record import case_content, encode_case, read_case
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.dataset import open_dataset

QUESTION = [{"role": "user", "content": "How many?"}]
WHOLE = Case(
    id="crm-001",
    messages=(
        CaseMessage(role="system", content="You help."),
        CaseMessage(role="user", content="Who owns Contoso?"),
        CaseMessage(
            role="assistant",
            content="Ana Duarte.",
            tool_calls=(
                RecordedCall(name="crm.find_account", arguments={"name": "Contoso"}, result={"owner": "Ana", "b": [None]}),
                RecordedCall(name="crm.find_account", result="There is none.", ok=False),
            ),
        ),
        CaseMessage(role="user", content="And Fabrikam?"),
    ),
    expected=Expected(
        answer="Jonas Weber.",
        facts=("Jonas Weber",),
        tool_calls=(ExpectedCall(name="crm.find_account", arguments={"name": "Fabrikam"}), ExpectedCall(name="hr.x")),
        refusal=False,
        number=2.5,
        pattern=r"Web\w+",
        schema={"type": "object"},
    ),
    tags=("crm", "Ärger"),
    tenant="acme",
    role="sales",
    metadata={"when": "2026-11-01", "nested": {"z": 1, "a": [1, None]}},
)  # fmt: skip


def written(tmp_path: Path, *records: Any, name: str = "cases.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), encoding="utf-8"
    )
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        open_dataset(path)
    first, *lines = error.value.message.splitlines()
    assert str(path) in first
    return [line.strip() for line in lines] or [first]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_cases_are_read_in_order_with_the_place_they_stand_at(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    one, two = ({"id": name, "messages": QUESTION, "tags": tags} for name, tags in (("a", ["x", "y"]), ("b", ["x"])))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(one).encode() + b"\r\n\r\n" + json.dumps(two).encode())
    found = open_dataset(path)
    assert (found.path, found.count, found.tags) == (path, 2, {"x": 2, "y": 1})
    assert [(case.id, case.source) for case in found.cases()] == [
        ("a", "said.jsonl, line 1"),
        ("b", "said.jsonl, line 3"),
    ]
    assert [case.id for case in found.cases()] == ["a", "b"]


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet", "all.pq"])
def test_what_is_written_is_read_again_with_all_it_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / name
    bare = Case(id="b", messages=(CaseMessage(role="user", content="Hi"),), expected=Expected(tool_calls=()))
    assert write_cases(path, [WHOLE, bare]) == 2
    first, second = open_dataset(path).cases()
    assert msgspec.structs.replace(first, source="") == WHOLE
    assert msgspec.structs.replace(second, source="") == bare
    assert first.source == f"{name}, {'line' if name.endswith('l') else 'row'} 1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_fingerprint_is_of_what_cases_say_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    write_cases(tmp_path / "a.jsonl", [WHOLE])
    write_cases(tmp_path / "a.parquet", [WHOLE])
    spaced = json.dumps(json.loads(encode_case(WHOLE)), sort_keys=True, indent=None, separators=(" , ", " : "))
    same = {
        open_dataset(path).fingerprint
        for path in (tmp_path / "a.jsonl", tmp_path / "a.parquet", written(tmp_path, spaced, name="b.jsonl"))
    }
    assert len(same) == 1
    other = msgspec.structs.replace(WHOLE, role="hr")
    write_cases(tmp_path / "c.jsonl", [other])
    assert open_dataset(tmp_path / "c.jsonl").fingerprint not in same


def test_parquet_with_columns_of_its_own_kind_is_read_too(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    rows = [
        {
            "id": "a",
            "messages": [
                {"role": "user", "content": "Hi", "tool_calls": None},
                {"role": "assistant", "content": None, "tool_calls": [{"name": "crm.x", "arguments": {"n": 1}, "result": "r"}]},
            ],
            "expected": {"facts": ["x"], "answer": None},
            "tags": ["t"],
            "tenant": None,
        }
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "native.parquet")
    (case,) = open_dataset(tmp_path / "native.parquet").cases()
    assert case.messages[1] == CaseMessage(
        role="assistant", tool_calls=(RecordedCall(name="crm.x", arguments={"n": 1}, result="r"),)
    )
    assert case.expected == Expected(facts=("x",))


def test_cases_are_read_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, *({"id": str(number), "messages": QUESTION} for number in range(50)))
    found = open_dataset(path)
    read: list[str] = []

    def counted(record: Any, source: str) -> Case:
        read.append(source)
        return read_case(record, source)

    monkeypatch.setattr(dataset, "read_case", counted)
    cases = found.cases()
    next(cases)
    next(cases)
    assert len(read) == 2


def test_a_file_that_was_changed_is_not_read_on(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "a", "messages": QUESTION})
    found = open_dataset(path)
    written(tmp_path, {"id": "a", "messages": QUESTION, "tags": ["new"]})
    with pytest.raises(ConfigError, match="changed while it was in use"):
        list(found.cases())


# -- what is wrong ---------------------------------------------------------------------------------------------------


def case(**fields: Any) -> dict[str, Any]:
    return {"id": "x", "messages": QUESTION, **fields}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "no JSON"),
        ([], "a case must be an object"),
        ({"messages": QUESTION}, "parley eval import"),
        ({"conversations": []}, "parley eval import"),
        (case(id=3), "id: expected str, got int"),
        (case(id=" \n"), "id must have"),
        (case(id="x" * 201), "id must have"),
        ({"id": "x"}, "messages"),
        (case(messages=[]), "there is no question"),
        (case(messages=[{"role": "assistant", "content": "Hi"}]), "there is no question"),
        (case(messages=[{"role": "user", "content": " "}]), "messages[0]: the last question is empty"),
        (case(messages=[*QUESTION, {"role": "tool"}]), "messages[1].role: invalid enum value 'tool'"),
        (case(messages=[*QUESTION, {"role": "user", "content": 4}]), "messages[1].content: expected str, got int"),
        (case(messages=[{**QUESTION[0], "tool_calls": [{"name": "a"}]}]), "only an assistant's message"),
        (case(messages=[*QUESTION, {"role": "system", "content": "Now!"}]), "messages[1]: a system message"),
        (case(messages=[*QUESTION, {"role": "assistant", "tool_calls": [{"name": "a"}, {"name": 2}]}]),
         "messages[1].tool_calls[1].name: expected str, got int"),
        (case(messages=[*QUESTION, {"role": "assistant", "tool_calls": [{"name": "a", "argument": {}}]}]),
         "no field messages[1].tool_calls[0].argument; there are name, arguments, result, ok"),
        (case(expcted={}), "no field expcted; there are id, messages, expected, tags, tenant, role, metadata"),
        (case(source="mine"), "no field source"),
        (case(expected={"fact": []}), "no field expected.fact"),
        (case(expected={"facts": ["a", " "]}), "expected.facts: a fact is empty"),
        (case(expected={"facts": "a"}), "expected.facts: expected array, got str"),
        (case(expected={"tool_calls": [{"name": "a", "arguments": []}]}), "expected.tool_calls[0].arguments: expected object"),
        (case(expected={"tool_calls": [{"nam": "a"}]}), "no field expected.tool_calls[0].nam"),
        (case(expected={"pattern": "("}), "expected.pattern: The pattern '(' cannot be used"),
        (case(expected={"schema": {"type": "thing"}}), "expected.schema"),
        (case(tags=["ok", " "]), "tags may be"),
        (case(tags=["x" * 101]), "tags may be"),
        (case(tags=["x"] * 51), "tags may be"),
        (case(role=1), "role: expected str | null, got int"),
    ],
)  # fmt: skip
def test_what_is_no_case_is_told_with_its_line(tmp_path: Path, record: Any, said: str) -> None:
    (problem,) = problems(written(tmp_path, {"id": "good", "messages": QUESTION}, record))
    assert problem.startswith("line 2: ")
    assert said in problem
    assert problem.endswith(".")


def test_a_number_that_is_none_cannot_be_expected(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    row = {"id": "x", "messages": json.dumps(QUESTION), "expected": {"number": math.inf}}
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "infinite.parquet")
    assert problems(tmp_path / "infinite.parquet") == ["row 1: expected.number must be a finite number."]


def test_two_cases_with_one_id_are_told_with_both_places(tmp_path: Path) -> None:
    path = written(tmp_path, case(id="a"), case(id="b"), case(id="a"))
    assert problems(path) == ["line 3: the id 'a' is in line 1 already."]


def test_many_problems_are_told_at_once_but_not_all(tmp_path: Path) -> None:
    found = problems(written(tmp_path, *("{}" for _ in range(50))))
    assert len(found) == 21
    assert found[1].startswith("line 2: ")
    assert found[-1] == "(It was read no further than these 20.)"


def test_a_line_that_is_too_long_is_told_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_files, "MAX_LINE_BYTES", 200)
    long = case(id="long", messages=[{"role": "user", "content": "x" * 1000}])
    assert problems(written(tmp_path, long, case(id=1))) == [
        "line 1: it is longer than 200 bytes.",
        "line 2: id: expected str, got int.",
    ]


def test_too_many_cases_and_too_many_tags_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, *(case(id=str(number), tags=[f"t{number}"]) for number in range(5)))
    assert open_dataset(path).count == 5
    monkeypatch.setattr(dataset, "MAX_DIFFERENT_TAGS", 4)
    assert "more than 4 different tags" in problems(path)[0]
    monkeypatch.setattr(dataset, "MAX_DIFFERENT_TAGS", 5)
    monkeypatch.setattr(dataset, "MAX_CASES", 4)
    assert "more than 4 cases" in problems(path)[0]


def test_files_that_hold_no_case_are_refused(tmp_path: Path) -> None:
    assert "There is no case" in problems(written(tmp_path, ""))[0]
    assert "cannot be read (No such file" in problems(tmp_path / "absent.jsonl")[0]
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    assert "cannot be read as Parquet" in problems(broken)[0]
    assert "cannot be read" in problems(tmp_path)[0]


def test_a_file_is_not_replaced_by_half_of_one(tmp_path: Path) -> None:
    path = written(tmp_path, case(id="before"))

    def breaking() -> Iterator[Case]:
        yield WHOLE
        raise KeyError("the source broke")

    with pytest.raises(KeyError):
        write_cases(path, breaking())
    assert [one.id for one in open_dataset(path).cases()] == ["before"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


# -- whatever it is --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "role", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"id": JSON | st.just("a"), "messages": JSON | st.just(QUESTION)},
        optional={"expected": JSON, "tags": JSON, "role": JSON, "metadata": JSON, "tenant": JSON},
    )
)
def test_any_json_is_a_case_or_is_told_why_not(tmp_path_factory: pytest.TempPathFactory, record: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "cases.jsonl"
    path.write_text(json.dumps(record))
    try:
        (found,) = open_dataset(path).cases()
    except ConfigError as error:
        assert "line 1: " in error.message
    else:
        assert read_case(json.loads(encode_case(found)), found.source) == found


@settings(deadline=None)
@given(st.text(min_size=1), st.dictionaries(st.text(), st.integers()))
def test_what_a_case_says_is_the_same_in_every_order(content: str, arguments: dict[str, int]) -> None:
    def of(order: dict[str, int]) -> Case:
        call = RecordedCall(name="t", arguments=order)
        return Case(id="a", messages=(CaseMessage(role="assistant", content=content, tool_calls=(call,)),))

    assert case_content(of(arguments)) == case_content(of(dict(reversed(list(arguments.items())))))


def test_records_are_read_without_reading_ahead(tmp_path: Path) -> None:
    path = written(tmp_path, case(id="a"), "broken", case(id="c"))
    assert [(one.place, bool(one.problem)) for one in read_records(path)] == [
        ("line 1", False), ("line 2", True), ("line 3", False),
    ]  # fmt: skip


def test_a_file_that_has_no_json_at_all_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\n" * 30)

    with pytest.raises(ConfigError) as raised:
        open_dataset(path)
    assert "neither JSON lines" in raised.value.message
    assert "\n" not in raised.value.message


def test_the_index_that_pandas_writes_beside_the_columns_is_no_field(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "cases.parquet"
    pandas.DataFrame({"id": ["a", "b"], "messages": [QUESTION, QUESTION]}, index=[5, 9]).to_parquet(path)

    assert [case.id for case in open_dataset(path).cases()] == ["a", "b"]
