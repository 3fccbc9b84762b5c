"""What a turn's log becomes on the OpenAI-compatible routes, byte by byte and however it is cut into batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolSpec
from serve_app.domain.turns import GivenPrompt, Query, Turn
from serve_app.errors import InvalidInput, NotFound
from serve_app.turns.port import Notice, Title
from serve_app.wire.openai_body import MAX_SHOWN_CHARS, shown_content
from serve_app.wire.openai_chat import Completion, CompletionChunks
from serve_app.wire.openai_chat_request import given_prompt, parse_chat_completion
from serve_app.wire.openai_ids import completion_id, conversation_id, response_id, response_key
from serve_app.wire.openai_response import response_object
from serve_app.wire.openai_response_stream import ResponseEvents
from tests.unit.wire.turn_logs import (
    answer,
    batches,
    cancelled,
    delta,
    failed,
    log_of,
    reset,
    result,
    started,
    thought,
    tool,
)

AT = datetime(2026, 11, 2, 9, 31, 10, tzinfo=UTC)
ANNA = Principal(tenant_id="acme", user_id="anna")
KEY = TurnKey.of(ANNA, "v1_01ARZ3NDEKTSV4RRFFQ69G5FAV.01ARZ3NDEKTSV4RRFFQ69G5FAW")
MINE = "crm.a"
"""A name that the random logs use, taken for one of the caller's tools."""
TURN = Turn(
    key=KEY,
    principal=ANNA,
    query=Query(
        content="",
        given=GivenPrompt(
            messages=(),
            tools=(ToolSpec(name=MINE, description="", input_schema={}),),
            shown={"model": "small", "store": True},
        ),
    ),
    created_at=AT,
    deadline=0.0,
)
HEAD = (
    'data: {"id":"chatcmpl-01ARZ3NDEKTSV4RRFFQ69G5FAV01ARZ3NDEKTSV4RRFFQ69G5FAW","object":"chat.completion.chunk",'
    '"created":1793611870,"model":"small","service_tier":"default","system_fingerprint":"fp_parley_1"'
)


def chunks(*parts: Any, include_usage: bool = False) -> bytes:
    stream = CompletionChunks(KEY.turn_id, "small", AT, {MINE}, include_usage=include_usage)
    return b"".join(stream.encode(part) for part in parts)


def frames(stream: bytes) -> list[Any]:
    found = [line[6:] for line in stream.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


def events(*parts: Any, after: int = -1) -> list[dict[str, Any]]:
    stream = ResponseEvents(TURN, after)
    out = b"".join(stream.encode(part) for part in parts)
    if stream.ended:
        out += stream.finish(response_object(TURN))
    read = []
    for block in out.decode().split("\n\n"):
        if block:
            name, data = block.split("\n")
            read.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {read[-1]['type']}"
    return read


# Chat completions


def test_the_chunks_of_a_plain_answer() -> None:
    log = log_of(started(), delta('He said "hi" \n'), delta("und é😀"), answer("…"))
    choice = ',"choices":[{"index":0,"delta":'
    end = ',"logprobs":null,"finish_reason":null}]}\n\n'
    assert chunks(log).decode() == (
        HEAD + choice + '{"role":"assistant","content":"","refusal":null}' + end
        + HEAD + choice + '{"content":"He said \\"hi\\" \\nund é😀"}' + end
        + HEAD + choice + '{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        + "data: [DONE]\n\n"
    )  # fmt: skip


def test_thoughts_are_content_of_another_kind() -> None:
    read = frames(chunks(log_of(started(), thought("Hm"), delta("Yes"), answer("Yes"))))
    assert [frame["choices"][0]["delta"] for frame in read[1:3]] == [{"reasoning_content": "Hm"}, {"content": "Yes"}]
    completion = Completion({MINE})
    completion.take(log_of(started(), thought("Hm"), delta("Yes"), answer("Yes")))
    assert completion.ended is not None
    message = json.loads(completion.encode(completion.ended, "small", AT))["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm", "Yes")


def test_what_is_no_event_of_the_turn_is_not_in_the_stream() -> None:
    log = log_of(started(), delta("a"), answer("a"))
    assert chunks([Title(title="T"), *log[:2], Notice(message="N"), log[2]]) == chunks(log[:2], log[2:])


@given(batches())
def test_chunks_say_the_same_however_a_log_is_cut(parts: list[list[EventRecord | Title]]) -> None:
    whole = [item for part in parts for item in part]
    read = frames(chunks(*parts, include_usage=True))
    assert merged(read) == merged(frames(chunks(whole, include_usage=True)))
    ends = [frame for frame in read if frame == "[DONE]" or "error" in frame]
    told = any(isinstance(item, EventRecord) and item.terminal for item in whole)
    assert len(ends) <= 1
    assert ends == read[-1:] if ends else not told, "an end, and nothing after it"
    if ends and ends[0] != "[DONE]":
        finished = [choice for frame in read[:-1] for choice in frame["choices"] if choice["finish_reason"] is not None]
        assert finished == []


def merged(read: list[Any]) -> list[Any]:
    """Neighbouring deltas of text as one."""
    out: list[Any] = []
    for frame in read:
        if (
            isinstance(frame, dict)
            and frame.get("choices")
            and out
            and isinstance(out[-1], dict)
            and out[-1].get("choices")
        ):
            before, now = out[-1]["choices"][0]["delta"], frame["choices"][0]["delta"]
            if before.keys() == now.keys() == {"content"}:
                before["content"] += now["content"]
                continue
        out.append(frame)
    return out


def test_text_that_is_void_ends_the_stream_unless_nobody_saw_it() -> None:
    unseen = frames(chunks(log_of(started(), delta("a"), reset(1), delta("b"), answer("ab"))))
    assert unseen[-1] == "[DONE]"
    seen = frames(chunks(log_of(started(), delta("a"), reset(0), delta("b"), answer("b"))))
    assert seen[-1]["error"]["type"] == "server_error"
    call = frames(chunks(log_of(started(), tool("c1", name=MINE), reset(0), answer("b"))))
    assert "error" in call[-1]


@pytest.mark.parametrize(("end", "code"), [(failed("Down."), "upstream_failed"), (cancelled(), "conflict")])
def test_an_end_that_is_no_answer_is_an_error(end: Any, code: str) -> None:
    assert frames(chunks(log_of(started(), delta("a"), end)))[-1]["error"]["code"] == code


def test_of_a_step_that_was_begun_again_only_the_last_calls_count() -> None:
    completion = Completion({MINE})
    completion.take(
        log_of(
            started(), tool("c1", name=MINE), tool("x"), result("x"), reset(0), tool("c2", name=MINE),
            answer("", "tool_calls"),
        )
    )  # fmt: skip
    assert [call.tool_call_id for call in completion.calls] == ["c2"]


# Responses


@given(batches(), st.integers(-1, 60))
def test_a_reader_that_comes_back_is_shown_exactly_the_rest(parts: list[list[EventRecord | Title]], after: int) -> None:
    log = [item for part in parts for item in part]
    whole = events(log)
    numbers = [event["sequence_number"] for event in whole]
    assert numbers == sorted(set(numbers))
    if not any(isinstance(item, EventRecord) and b'"step.reset"' in item.body for item in log):
        assert numbers == list(range(len(whole)))
    assert events(*parts) == whole
    assert events(*parts, after=after) == [event for event in whole if event["sequence_number"] > after]


@pytest.mark.parametrize("lost", [1, 2, 30])
@pytest.mark.parametrize("shown", [0, 1, 5])
def test_a_number_means_the_same_after_events_that_an_owner_took_to_its_grave(lost: int, shown: int) -> None:
    begun = [started(), *[delta("a")] * shown]
    rest = [delta("new "), delta("text"), answer("new text")]
    seen = log_of(*begun, *[delta("lost")] * lost, reset(), *rest)
    kept = log_of(*begun, *[reset()] * (lost + 1), *rest)
    live, replayed = events(seen), events(kept)
    place = next(n for n, event in enumerate(live) if event.get("delta") == "new ") - 2
    after = live[place]["sequence_number"]
    assert live[place]["type"] == "response.output_item.added"
    assert all(event["sequence_number"] < after for event in live[:place])

    def rest_of(read: list[dict[str, Any]]) -> list[Any]:
        found = [event for event in read if event["sequence_number"] >= after]
        return [(event["sequence_number"], event["type"], event.get("delta")) for event in found]

    assert rest_of(replayed) == rest_of(live)
    for cursor in range(after):
        back = events(kept, after=cursor)
        assert "".join(event["delta"] for event in back if "delta" in event).endswith("new text")
        assert rest_of(back) == rest_of(live)


@given(batches())
def test_every_item_is_begun_once_and_done_once(parts: list[list[EventRecord | Title]]) -> None:
    read = events(*parts)
    added = [event for event in read if event["type"] == "response.output_item.added"]
    done = [event for event in read if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert len({event["item"]["id"] for event in added}) == len(added)
    ended = bool(read) and read[-1]["type"] in {"response.completed", "response.failed", "response.incomplete"}
    begun = [(event["output_index"], event["item"]["id"]) for event in added]
    finished = [(event["output_index"], event["item"]["id"]) for event in done]
    assert finished == (begun if ended else begun[: len(finished)])
    for event in done:
        if event["item"]["type"] == "message":
            deltas = [
                one["delta"]
                for one in read
                if one["type"] == "response.output_text.delta" and one["item_id"] == event["item"]["id"]
            ]
            assert event["item"]["content"][0]["text"] == "".join(deltas)


# Requests and ids


def test_ids_are_made_of_the_turns_and_back() -> None:
    assert response_key(ANNA, response_id(KEY.turn_id)) == KEY
    assert completion_id(KEY.turn_id).removeprefix("chatcmpl-") == response_id(KEY.turn_id).removeprefix("resp_")
    for wrong in ("", "resp_", response_id(KEY.turn_id) + "0", response_id(KEY.turn_id).lower(), "conv-1.x"):
        with pytest.raises(NotFound):
            response_key(ANNA, wrong)


def test_a_key_names_one_conversation_and_no_key_a_new_one() -> None:
    assert conversation_id("k") == conversation_id("k") != conversation_id("l")
    assert conversation_id(None) != conversation_id(None)
    for made in (conversation_id("k" * 128), conversation_id(None)):
        assert not ConversationKey.of(ANNA, made).listed
    for theirs in ("v1_", "v1_notes", "c_01ARZ3NDEKTSV4RRFFQ69G5FAV", "v1_01ARZ3NDEKTSV4RRFFQ69G5FAVx"):
        assert ConversationKey.of(ANNA, theirs).listed, "a client may have chosen such an id"


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.[0].role"),
        ({"messages": [{"role": "user"}]}, "messages.[0].content"),
        ({"messages": [{"content": "x"}]}, "messages.[0].role"),
        ({"model": ""}, "model"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.[0].function.name"),
        ({"tools": [{"type": "custom"}]}, "tools.[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"odd": 1}, "odd"),
    ],
)
def test_a_request_that_cannot_be_kept_is_refused_by_its_parameter(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        given_prompt(parse_chat_completion(body(**fields)), None)
    assert (refused.value.details or [{}])[0]["field"] == param


def test_what_asks_for_nothing_is_taken() -> None:
    harmless = {
        "n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "frequency_penalty": 0, "presence_penalty": 0.0,
        "modalities": ["text"], "seed": 1, "user": "u", "metadata": {}, "store": True, "service_tier": "auto",
        "verbosity": None, "stream": False, "prompt_cache_key": "k", "safety_identifier": "s",
    }  # fmt: skip
    assert given_prompt(parse_chat_completion(body(**harmless)), None).messages[0].content == "Hi"
    for text in (b"", b"{", b"[]", b'{"model": "\xff"}'):
        with pytest.raises(InvalidInput):
            parse_chat_completion(text)


def test_people_are_shown_only_the_beginning_of_a_request() -> None:
    long = given_prompt(parse_chat_completion(body(messages=[{"role": "user", "content": "x" * 10_000}])), None)
    assert shown_content(long.messages) == "x" * MAX_SHOWN_CHARS
