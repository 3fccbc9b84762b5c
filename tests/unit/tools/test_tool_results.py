"""What a server answered, as what a model is given."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from serve_app.tools.results import bounded, result_value

DATA = base64.b64encode(b"12345").decode()


def text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def test_structured_content_comes_before_text() -> None:
    assert result_value(CallToolResult(content=[text("7")], structured_content={"n": 7}), 100) == {"n": 7}


def test_of_an_error_the_text_comes_first() -> None:
    answer = CallToolResult(content=[text("It is closed.")], structured_content={"code": 3}, is_error=True)
    assert result_value(answer, 100) == "It is closed."
    silent = CallToolResult(content=[], structured_content={"code": 3}, is_error=True)
    assert result_value(silent, 100) == {"code": 3}


def test_text_blocks_are_joined_and_everything_else_is_summarised() -> None:
    answer = CallToolResult(
        content=[
            text("one"),
            ImageContent(type="image", mime_type="image/png", data=DATA),
            AudioContent(type="audio", mime_type="audio/wav", data=DATA),
            ResourceLink(type="resource_link", name="manual", uri="file:///m"),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///t", text="inside")),
            EmbeddedResource(type="resource", resource=BlobResourceContents(uri="file:///b", blob=DATA)),
            text("two"),
        ]
    )
    assert result_value(answer, 1000).split("\n") == [
        "one",
        "[image image/png, 5 bytes]",
        "[audio audio/wav, 5 bytes]",
        "[resource manual: file:///m]",
        "inside",
        "[resource file:///b, of unknown type, 5 bytes]",
        "two",
    ]


def test_nothing_is_an_empty_text() -> None:
    assert result_value(CallToolResult(content=[]), 100) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(JSON, st.integers(min_value=0, max_value=200))
def test_a_bounded_value_is_within_its_bound_or_untouched(value: Any, limit: int) -> None:
    kept = bounded(value, limit)
    if kept is not value:
        assert isinstance(kept, str)
        assert len(kept.encode()) <= limit


@pytest.mark.parametrize("limit", [60, 61, 62, 63])
def test_a_cut_never_splits_a_character_and_tells_the_sizes(limit: int) -> None:
    kept = bounded("é" * 100, limit)
    shown, _, note = kept.partition("\n")
    assert set(shown) == {"é"}
    assert note == f"[cut: the first {len(shown.encode())} of 200 bytes]"


def test_a_value_that_fits_exactly_is_not_cut() -> None:
    value = {"a": "é"}
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    assert bounded(value, size) is value
    assert bounded(value, size - 1) is not value
