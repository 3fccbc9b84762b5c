"""The AI SDK's body: the last user message is read, the rest is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.errors import InvalidInput
from serve_app.wire.chat_request import MAX_MESSAGES, ChatRequest, parse_chat_request


def user(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"type": "text", "text": text}], **more}


def parsed(messages: Any, **more: Any) -> ChatRequest:
    return parse_chat_request(json.dumps({"messages": messages, **more}).encode())


def test_the_last_user_message_alone_is_kept() -> None:
    request = parsed([user("first"), {"role": "assistant", "parts": "odd"}, user("last", id="3"), {"role": "tool"}])
    assert [message.id for message in request.messages] == ["3"]
    assert request.query_text() == ("last", "3")


def test_texts_of_a_message_are_joined_and_other_parts_left_out() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "step-start"}, {"text": "no type"}, {"type": "text", "text": "ä"}]
    assert parsed([user() | {"parts": parts}]).query_text() == ("a\nä", None)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "parts": []}],
        [{}],
        [user(), 3],
        [user(), {"role": 3}],
        [3, user("\ud800")],
        [{"role": "assistant", "parts": ["\ud800"]}],
        [user()] * (MAX_MESSAGES + 1),
    ],
)
def test_messages_without_a_readable_question_are_invalid_input(messages: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^messages: .*\.$"):
        parsed(messages)


@pytest.mark.parametrize("messages", [None, "top-secret", {}, [], [user() | {"parts": 3}], [user("x", id=7)]])
def test_messages_of_another_shape_are_named_by_their_field(messages: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        parsed(messages)
    assert caught.value.errors()[0]["loc"][0] == "messages"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"messages":[}', b"\xff", b'{"id":"\xff"}', b"[" * 200_000, b"9" * 5_000]
)
def test_what_is_no_json_is_told_as_such(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_chat_request(body)


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null"])
def test_json_that_is_no_object_does_not_fit(body: bytes) -> None:
    with pytest.raises(ValidationError):
        parse_chat_request(body)


def test_half_a_surrogate_pair_matters_in_the_question_only() -> None:
    assert parsed([user("half \ud800"), user("whole")], other="\udfff").query_text()[0] == "whole"
    with pytest.raises(InvalidInput, match="surrogate"):
        parsed([user("whole"), user("half \ud800")]).query_text()
    assert parsed([user("\U0001f600")]).query_text()[0] == "\U0001f600"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": _JSON,
            "messages": st.lists(_JSON | st.builds(user, st.text(st.characters(), max_size=9)), max_size=4) | _JSON,
            "trigger": _JSON,
            "messageId": _JSON,
            "model_id": _JSON,
            "x": _JSON,
        },
    )
    | _JSON
)
def test_any_json_is_a_request_or_a_refusal(body: Any) -> None:
    try:
        text, _ = parse_chat_request(json.dumps(body).encode()).query_text()
    except (InvalidInput, ValidationError):
        return
    assert text.encode() is not None


@pytest.mark.parametrize(
    "url",
    [
        "/api/file/f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND/download",
        "https://parley.example/api/file/f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND/download",
        "http://127.0.0.1:8000/api/file/f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND/download?x=1",
        "https://acc.blob.core.windows.net/parley/files/acme/an%3D40a/f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND?sv=2025-01-05&sp=r&sig=a%2Fb%3D",
    ],
)
def test_a_file_part_names_a_file_that_was_uploaded_before(url: str) -> None:
    file_id = "f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND"
    part = {"type": "file", "mediaType": "text/plain", "url": url}
    request = parsed([{"role": "user", "parts": [{"type": "text", "text": "Read this"}, part]}])
    assert request.file_ids() == (file_id,)
    assert request.query_text() == ("Read this", None)


@pytest.mark.parametrize(
    "url",
    [
        "data:text/plain;base64,SGk=",
        "https://elsewhere.example/a.txt",
        "/api/file/../../etc/passwd/download",
        "https://elsewhere.example/?file=f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND",
        "/api/file/f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND/download/more",
        "",
        None,
        7,
    ],
)
def test_a_file_that_was_not_uploaded_here_is_refused_with_what_to_do(url: Any) -> None:
    request = parsed([{"role": "user", "parts": [{"type": "text", "text": "Hi"}, {"type": "file", "url": url}]}])
    with pytest.raises(InvalidInput, match="upload a file to /api/file first"):
        request.file_ids()
