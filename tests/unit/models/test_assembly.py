"""Chunks of all the kinds providers send, put together to one generation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.domain.generation import Thought
from serve_app.errors import QuotaExceeded, UpstreamFailed
from serve_app.models.assembly import MAX_TOOL_CALLS
from serve_app.models.failures import ProviderFailures
from serve_app.models.openai_assembly import OpenAIAssembly
from serve_app.models.tool_names import ToolNames
from tests.simulators.models.wire_server import chunk, usage_chunk

STOP = chunk(finish="stop")


def assembly(max_bytes: int = 100_000) -> OpenAIAssembly:
    return OpenAIAssembly(ToolNames(["crm.find"]), ProviderFailures("p", "http://p", "KEY"), max_bytes)


def tool(
    index: int | None = None,
    id: str | None = None,  # noqa: A002 - the wire's word
    name: str | None = None,
    arguments: Any = None,
) -> dict[str, Any]:
    fields = {"index": index, "id": id}
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {key: value for key, value in fields.items() if value is not None} | {
        "type": "function",
        "function": function,
    }


def calls_of(*deltas: list[dict[str, Any]], finish: str = "tool_calls") -> list[tuple[str, str, Any]]:
    generation = assembly()
    generation.add([chunk({"tool_calls": fragments}) for fragments in deltas] + [chunk(finish=finish)])
    generation.end()
    assert generation.failure is None
    assert generation.finish_reason() == "tool_calls"
    return [(call.tool_call_id, call.name, call.arguments) for call in generation.tool_calls()]


ONE_AND_TWO = [("a", "crm.find", {"n": 1}), ("b", "crm.find", {"n": 2})]


def test_text_usage_and_finish_reason_are_collected() -> None:
    generation = assembly()
    pieces = generation.add(
        [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"})]
    )
    assert pieces == ["Hel", "lo"]
    assert generation.add([STOP, usage_chunk(3, 4), b"[DONE]"]) == []
    assert generation.end() == []
    assert (generation.text, generation.finish_reason()) == ("Hello", "stop")
    assert (generation.usage().input_tokens, generation.usage().output_tokens) == (3, 4)
    assert generation.done and generation.finished and generation.failure is None


def test_fragments_are_joined_by_index_even_when_calls_take_turns() -> None:
    assert (
        calls_of(
            [tool(0, "a", "crm__find", "")],
            [tool(1, "b", "crm__find", "")],
            [tool(0, arguments='{"n"'), tool(1, arguments='{"n":')],
            [tool(1, arguments=" 2}")],
            [tool(0, arguments=": 1}")],
        )
        == ONE_AND_TWO
    )


def test_one_index_for_all_calls_is_told_apart_by_ids() -> None:
    assert (
        calls_of(
            [tool(0, "a", "crm__find", '{"n":')],
            [tool(0, arguments="1}")],
            [tool(0, "b", "crm__find", '{"n":')],
            [tool(0, arguments="2}")],
        )
        == ONE_AND_TWO
    )


def test_calls_without_an_index_begin_with_an_id_and_continue_without() -> None:
    assert (
        calls_of(
            [tool(None, "a", "crm__find", '{"n":')],
            [tool(arguments="1}")],
            [tool(None, "b", "crm__find")],
            [tool(arguments='{"n":2}')],
        )
        == ONE_AND_TWO
    )


def test_whole_calls_in_one_chunk_need_neither_index_nor_id() -> None:
    calls = calls_of([tool(name="crm__find", arguments='{"n":1}'), tool(name="crm__find", arguments={"n": 2})])
    assert [call[1:] for call in calls] == [call[1:] for call in ONE_AND_TWO]
    assert len({call[0] for call in calls}) == 2
    assert all(call[0] for call in calls)


def test_an_id_that_comes_late_and_a_name_said_twice_belong_to_their_call() -> None:
    assert calls_of(
        [tool(0, None, "crm__find", '{"n":')], [tool(0, "a", "crm__find", "1}")], [tool(0, "a", arguments=" ")]
    ) == [ONE_AND_TWO[0]]


def test_a_name_in_two_fragments_is_joined() -> None:
    assert calls_of([tool(0, "a", "crm__")], [tool(0, name="find", arguments="{}")]) == [("a", "crm.find", {})]


def test_ids_used_twice_are_made_distinct() -> None:
    calls = calls_of([tool(0, "a", "crm__find", "{}")], [tool(1, "a", "crm__find", "{}")])
    assert len({call[0] for call in calls}) == 2


def test_calls_count_even_when_the_provider_says_stop() -> None:
    assert calls_of([tool(0, "a", "crm__find", '{"n":1}')], finish="stop") == ONE_AND_TWO[:1]


def test_arguments_that_are_no_object_are_none_and_kept_raw() -> None:
    generation = assembly()
    generation.add([chunk({"tool_calls": [tool(0, "a", "crm__find", '{"n": 1')]}), chunk(finish="length")])
    (call,) = generation.tool_calls()
    assert (call.arguments, call.raw) == (None, '{"n": 1')
    assert generation.finish_reason() == "length"


def test_half_an_emoji_waits_for_its_other_half() -> None:
    generation = assembly()
    first, second = (
        json.dumps({"choices": [{"index": 0, "delta": {"content": half}}]}).encode() for half in ("a\ud83d", "\ude00b")
    )
    assert generation.add([first]) == ["a"]
    assert generation.add([second]) == ["😀b"]
    lonely = json.dumps({"choices": [{"index": 0, "delta": {"content": "\ud83d"}, "finish_reason": "stop"}]}).encode()
    assert generation.add([lonely]) == []
    assert generation.end() == ["\ufffd"]
    assert generation.text == "a😀b\ufffd"


def test_emoji_cut_inside_arguments_are_joined() -> None:
    generation = assembly()
    for half in ('{"n":"\ud83d', '\ude00"}'):
        loose = {"choices": [{"index": 0, "delta": {"tool_calls": [tool(0, "a", "crm__find", half)]}}]}
        generation.add([json.dumps(loose).encode()])
    assert generation.tool_calls()[0].arguments == {"n": "😀"}


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning_content": "Hm.", "reasoning": "Hm."},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    ],
)
def test_thoughts_are_found_under_every_name_and_are_no_text(delta: dict[str, Any]) -> None:
    generation = assembly()
    pieces = generation.add([chunk(delta), chunk({"content": "Yes.", "reasoning_content": None}), STOP])
    assert pieces == ["Hm.", "Yes."]
    assert [isinstance(piece, Thought) for piece in pieces] == [True, False]
    generation.end()
    assert generation.text == "Yes." and generation.failure is None


def test_a_reasoning_that_is_no_text_is_passed_over() -> None:
    generation = assembly()
    assert generation.add([chunk({"reasoning": {"effort": "high"}, "content": "a"})]) == ["a"]


def test_thoughts_count_towards_the_bound() -> None:
    generation = assembly(10)
    generation.add([chunk({"reasoning": "x" * 11})])
    assert isinstance(generation.failure, UpstreamFailed)


def test_cached_tokens_are_found_in_the_words_of_others() -> None:
    generation = assembly()
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_tokens_details": None}
    generation.add([chunk(choices=[], usage=usage)])
    assert generation.usage().cached_input_tokens == 4


def test_content_in_parts_and_refusals_are_text() -> None:
    generation = assembly()
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": []}, {"type": "text", "text": "b"}]
    assert generation.add([chunk({"content": parts}), chunk({"refusal": "No."})]) == ["a", "b", "No."]


def test_a_failure_inside_a_read_does_not_swallow_the_text_before_it() -> None:
    generation = assembly()
    assert generation.add([chunk({"content": "a"}), b'{"choices": [', chunk({"content": "b"})]) == ["a"]
    assert isinstance(generation.failure, UpstreamFailed)


@pytest.mark.parametrize(
    "bad", [b"{", b"nonsense", b'{"choices": 3}', b'{"choices":[{"delta":{"content":"\xff"}}]}', b"[]"]
)
def test_what_cannot_be_read_is_the_providers_failure(bad: bytes) -> None:
    generation = assembly()
    generation.add([bad])
    assert isinstance(generation.failure, UpstreamFailed) and generation.failure.retryable


def test_an_error_in_place_of_a_chunk_is_told_with_the_providers_words() -> None:
    generation = assembly()
    generation.add([b'{"error": {"message": "The engine is on fire", "code": null}}'])
    assert isinstance(generation.failure, UpstreamFailed)
    assert "The engine is on fire" in generation.failure.message
    limited = assembly()
    limited.add([b'{"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}'])
    assert isinstance(limited.failure, QuotaExceeded)


def test_an_end_without_a_finish_reason_is_a_failure_that_may_be_retried() -> None:
    for events in ([chunk({"content": "a"})], [chunk({"content": "a"}), b"[DONE]"], []):
        generation = assembly()
        generation.add(events)
        generation.end()
        assert isinstance(generation.failure, UpstreamFailed) and generation.failure.retryable
        assert "without a finish reason" in generation.failure.message


def test_text_and_arguments_together_are_bounded_in_bytes() -> None:
    within, beyond, arguments = assembly(max_bytes=10), assembly(max_bytes=10), assembly(max_bytes=10)
    within.add([chunk({"content": "€€€"})])
    beyond.add([chunk({"content": "€€€"}), chunk({"content": "€"})])
    arguments.add([chunk({"content": "x"}), chunk({"tool_calls": [tool(0, "a", "crm__find", "x" * 10)]})])
    assert within.failure is None
    for failure in (beyond.failure, arguments.failure):
        assert isinstance(failure, UpstreamFailed)
        assert not failure.retryable


def test_the_number_of_calls_is_bounded() -> None:
    generation = assembly()
    generation.add([chunk({"tool_calls": [tool(n, f"c{n}", "crm__find", "{}")]}) for n in range(MAX_TOOL_CALLS + 1)])
    assert isinstance(generation.failure, UpstreamFailed)


def test_further_candidates_and_everything_after_the_end_are_ignored() -> None:
    generation = assembly()
    second = b'{"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": null}]}'
    assert generation.add([second, STOP, b"[DONE]", chunk({"content": "late"})]) == []
