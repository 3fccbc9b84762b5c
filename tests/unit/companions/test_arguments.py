"""Arguments filled from a JSON schema and a question."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.companions.provider.assistant.arguments import fill_arguments, schema_example
from serve_app.companions.provider.assistant.spans import find_spans


def fill(text: str, properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required or []}
    return fill_arguments(schema, text, find_spans(text)).arguments


STRING: dict[str, Any] = {"type": "string"}


@pytest.mark.parametrize(
    ("text", "properties", "expected"),
    [
        ('Search for "open invoices" please', {"query": STRING}, {"query": "open invoices"}),
        ("Mails from ana@example.com", {"email": STRING}, {"email": "ana@example.com"}),
        ("Fetch https://example.com/a?b=1 now", {"url": STRING}, {"url": "https://example.com/a?b=1"}),
        ("Show the top 5 results", {"limit": {"type": "integer"}}, {"limit": 5}),
        ("A budget of €1.5 million", {"budget": {"type": "number"}}, {"budget": 1_500_000}),
        ("Meet on 2027-03-04", {"date": {"type": "string", "format": "date"}}, {"date": "2027-03-04"}),
        ("Priority high, please", {"priority": {"enum": ["low", "high"]}}, {"priority": "high"}),
        ("Mark it in_progress", {"status": {"enum": ["in_progress", "done"]}}, {"status": "in_progress"}),
        ("Include archived ones", {"archived": {"type": "boolean"}}, {"archived": True}),
        ("Nothing of note here", {"city": STRING, "limit": {"type": "integer"}}, {}),
    ],
)
def test_a_value_is_found_where_the_question_gives_it(
    text: str, properties: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert fill(text, properties) == expected


def test_dates_and_ids_are_not_mistaken_for_numbers() -> None:
    assert fill("Set OPP-1001 to 2027-01-31", {"amount": {"type": "integer"}}) == {}


def test_two_dates_go_to_two_arguments_in_order() -> None:
    day = {"type": "string", "format": "date"}
    made = fill("From 2027-01-01 to 2027-02-01", {"start_date": day, "end_date": day})
    assert made == {"start_date": "2027-01-01", "end_date": "2027-02-01"}


def test_references_and_nullable_types_are_followed() -> None:
    schema = {
        "type": "object",
        "properties": {"stage": {"anyOf": [{"$ref": "#/$defs/Stage"}, {"type": "null"}]}},
        "$defs": {"Stage": {"enum": ["Open", "Closed"]}},
    }
    assert fill_arguments(schema, "only closed ones", []).arguments == {"stage": "Closed"}


def test_a_required_value_that_is_not_found_is_made_up_and_reported() -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer", "minimum": 3}}, "required": ["count"]}
    filled = fill_arguments(schema, "hello", [])
    assert filled.arguments == {"count": 3}
    assert filled.missing == ("count",)


_leaf = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": 1},
        {"type": "number"},
        {"type": "boolean"},
        {"enum": ["red", "green"]},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    ]
)
_names = st.sampled_from(["name", "account_id", "amount", "due_date", "colour", "tags", "query", "limit", "open"])


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(_names, _leaf, max_size=5),
    st.text(alphabet="abc ABC 12 -.,'\"", max_size=60)
    | st.sampled_from(["Contoso and Fabrikam, 12 red on 2027-01-01"]),
)
def test_what_is_filled_always_fits_the_schema(properties: dict[str, Any], text: str) -> None:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    jsonschema.validate(fill_arguments(schema, text, find_spans(text)).arguments, schema)
    jsonschema.validate(schema_example(schema, text, everything=True), schema)
