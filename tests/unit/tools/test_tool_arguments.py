"""Arguments against schemas, the odd ones included."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from serve_app.tools.arguments import ArgumentCheck, UnusableSchema


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_arguments_that_fit_have_no_problem() -> None:
    assert ArgumentCheck(schema(a={"type": "integer"})).problem({"a": 1}) is None


def test_a_problem_names_the_place_down_to_the_item() -> None:
    check = ArgumentCheck(schema(rows={"type": "array", "items": schema(size={"type": "integer"})}))
    said = check.problem({"rows": [{"size": 1}, {"size": "big"}]})
    assert said == "arguments.rows[1].size: 'big' is not of type 'integer'"


def test_no_more_than_three_problems_are_told_and_none_is_long() -> None:
    check = ArgumentCheck(schema(**{f"k{n}": {"type": "integer"} for n in range(50)}))
    said = check.problem({f"k{n}": "x" * 10_000 for n in range(50)})
    assert said is not None
    assert said.count("; ") == 2
    assert len(said) < 1200


def test_an_older_dialect_that_the_schema_names_is_followed() -> None:
    # In 2020-12 a list of schemas under "items" would be an invalid schema.
    pair = {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}
    check = ArgumentCheck({"$schema": "http://json-schema.org/draft-07/schema#", **schema(pair=pair)})
    assert check.problem({"pair": ["a", 1]}) is None
    assert check.problem({"pair": ["a", "b"]}) is not None


def test_references_inside_the_schema_are_followed() -> None:
    check = ArgumentCheck({**schema(a={"$ref": "#/$defs/n"}), "$defs": {"n": {"type": "integer"}}})
    assert check.problem({"a": 1}) is None
    assert check.problem({"a": "x"}) is not None


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd", "#/$defs/missing"])
def test_references_to_anywhere_else_are_never_fetched(reference: str) -> None:
    check = ArgumentCheck(schema(a={"$ref": reference}))
    with pytest.raises(UnusableSchema):
        check.problem({"a": 1})


@pytest.mark.timeout(20)
def test_a_reference_to_another_host_opens_no_connection() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        check = ArgumentCheck(schema(a={"$ref": f"http://127.0.0.1:{listener.getsockname()[1]}/s.json"}))
        with pytest.raises(UnusableSchema):
            check.problem({"a": 1})
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_schema_that_goes_in_circles_is_reported_and_not_followed_for_ever() -> None:
    with pytest.raises(UnusableSchema):
        ArgumentCheck({"$ref": "#"}).problem({"a": 1})


@pytest.mark.parametrize("broken", [{"type": "objekt"}, {"properties": []}, {"type": "object", "required": "a"}])
def test_a_schema_that_is_none_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(UnusableSchema, match="its input schema is invalid"):
        ArgumentCheck(broken)


def test_a_pattern_that_cannot_be_compiled_is_reported() -> None:
    with pytest.raises(UnusableSchema):
        ArgumentCheck(schema(a={"type": "string", "pattern": "("})).problem({"a": "x"})
