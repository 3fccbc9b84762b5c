"""Answers that are JSON."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.json_answers import CheckedSchema
from tests.unit.evaluation.graders.subjects import a_subject, graded, made, score

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer", "minimum": 1}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "options", "wanted"),
    [
        ('{"name": "x", "size": 3}', {}, 1),
        ('  {"name": "x"}\n', {}, 1),
        ('```json\n{"name": "x"}\n```', {}, 1),
        ('Here you are:\n\n```json\n{"name": "x"}\n```\nAnything else?', {}, 1),
        ('~~~\n{"name": "x"}\n~~~', {}, 1),
        ('```json\n{"name": "x"}\n```', {"fences": False}, 0),
        ('```python\nx = 1\n```\n```json\n{"name": "x"}\n```', {}, 1),
        ('```json\n{"name": "x"}\n```\n```json\n{"name": "y"}\n```', {}, 0),
        ('{"name": "x", "size": 0}', {}, 0),
        ('{"size": 1}', {}, 0),
        ('{"name": "x", "more": 1}', {}, 0),
        ('{"name": 5}', {}, 0),
        ('["name"]', {}, 0),
        ('{"name": "x"', {}, 0),
        ("It is x.", {}, 0),
        ("", {}, 0),
    ],
)
async def test_an_answer_keeps_the_schema(answer: str, options: dict[str, Any], wanted: int) -> None:
    assert await score({"type": "json_schema", "schema": SCHEMA, **options}, a_subject(answer)) == wanted


async def test_what_is_wrong_is_told_with_its_place() -> None:
    schema = {"type": "array", "items": SCHEMA}
    grade = await graded({"type": "json_schema"}, a_subject('[{"name": "x"}, {"name": "y", "size": 0}]', schema=schema))
    assert grade is not None
    assert "[1].size" in grade.reason


async def test_the_schema_of_the_run_file_wins_over_the_cases() -> None:
    subject = a_subject("[]", schema={"type": "array"})
    assert await score({"type": "json_schema"}, subject) == 1
    assert await score({"type": "json_schema", "schema": {"type": "object"}}, subject) == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"properties": {"a": {"pattern": "("}}},
        {"patternProperties": {"(": {}}},
        {"patternProperties": {"a": {}}, "unevaluatedProperties": False},
        {"required": "name"},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_before_anything_runs(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="grader 'json_schema'"):
        made({"type": "json_schema", "schema": schema})


@pytest.mark.parametrize("reference", ["#", "#/$defs/nowhere", "other.json"])
async def test_a_reference_that_leads_nowhere_is_said(reference: str) -> None:
    grade = await graded({"type": "json_schema"}, a_subject("{}", schema={"$ref": reference}))
    assert grade is not None
    assert grade.score is None
    assert "cannot be followed" in grade.reason


@pytest.mark.timeout(20)
async def test_nothing_that_a_schema_refers_to_is_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "http://{}:{}/schema.json".format(*server.getsockname())
        grade = await graded({"type": "json_schema"}, a_subject("{}", schema={"$ref": address}))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert grade is not None
    assert "cannot be followed" in grade.reason


async def test_words_that_look_like_keywords_inside_values_are_no_patterns() -> None:
    schema = {"properties": {"pattern": {"const": {"pattern": "("}}}, "default": {"pattern": "("}}
    assert await score({"type": "json_schema", "schema": schema}, a_subject('{"pattern": {"pattern": "("}}')) == 1


def test_names_that_a_pattern_allows_are_not_additional() -> None:
    schema = CheckedSchema(
        {"patternProperties": {"^x_": {"type": "integer"}}, "properties": {"a": {}}, "additionalProperties": False}
    )
    assert schema.problems({"a": 1, "x_1": 2}) == []
    assert len(schema.problems({"b": 1, "x_1": "2"})) == 2
