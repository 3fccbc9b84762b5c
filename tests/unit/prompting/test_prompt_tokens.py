"""Counting is right, offline, and not repeated."""

from __future__ import annotations

import pytest

from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.prompting.tokens import BpeTokenCounter, CachedTokenCounter, message_tokens, shortened, tool_tokens
from tests.unit.prompting.conftest import WordCounter


@pytest.fixture(scope="module")
def bpe() -> BpeTokenCounter:
    counter = BpeTokenCounter()
    counter.load()
    return counter


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("hello world", 2), ("tokenization is fun", 4), ("<|endoftext|>", 7)]
)
def test_counts_are_those_of_o200k_and_special_tokens_are_text(bpe: BpeTokenCounter, text: str, tokens: int) -> None:
    assert bpe.count(text) == tokens


def test_texts_beyond_the_tokenizers_own_limit_are_counted(bpe: BpeTokenCounter) -> None:
    assert bpe.count("漢" * 250_000) == pytest.approx(250_000, rel=0.01)
    assert bpe.count("\ud800 lone") > 0


def test_a_text_is_counted_once_as_long_as_it_is_remembered(words: WordCounter) -> None:
    cached = CachedTokenCounter(words, max_entries=2)
    assert [cached.count("a b"), cached.count("a b"), cached.count("c")] == [2, 2, 1]
    assert words.counted == 2
    cached.count("a b")
    cached.count("d e f")
    assert words.counted == 3
    assert cached.count("a b") == 2
    assert words.counted == 3
    assert cached.count("c") == 1
    assert words.counted == 4


def test_calls_and_tool_descriptions_cost_tokens(words: WordCounter) -> None:
    call = ToolCall(tool_call_id="c", name="crm.find", arguments={"a": 1}, raw='{"a": 1}')
    plain = message_tokens(words, ModelMessage(role="assistant", content="one two"))
    assert message_tokens(words, ModelMessage(role="assistant", content="one two", tool_calls=(call,))) > plain > 2
    spec = ToolSpec(name="crm.find", description="Finds accounts.", input_schema={"type": "object"})
    assert tool_tokens(words, ()) == 0
    assert tool_tokens(words, (spec, spec)) > tool_tokens(words, (spec,)) > 4


@pytest.mark.parametrize(
    "text", ["漢字かな " * 4_000, '{"id":1,"name":"x"},' * 3_000, "a" * 50_000, "one two " * 5_000]
)
def test_a_shortened_text_is_a_beginning_within_the_limit(bpe: BpeTokenCounter, text: str) -> None:
    cut = shortened(bpe, text, 100, " [cut]")
    assert bpe.count(cut) <= 100
    assert bpe.count(cut) > 50
    assert text.startswith(cut.removesuffix(" [cut]"))
    assert shortened(bpe, "short", 100, " [cut]") == "short"
    assert shortened(bpe, text, 2, " [cut]").endswith("[cut]")
