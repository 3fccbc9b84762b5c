"""The built-in embedder: near where words are shared, the same everywhere."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.embeddings.word_vectors import DIMENSIONS, WordVectors


async def cosine(one: str, other: str) -> float:
    vectors = (await WordVectors().embed([one, other])).vectors
    return float(vectors[0] @ vectors[1])


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("Contoso has three open deals.", "Three deals of Contoso are open.", "The weather in Oslo is mild."),
        ("You have 12 days of leave left.", "12 days of leave are left.", "You have 9 opportunities left."),
        ("The invoice was paid", "Invoices were paid", "The meeting was moved"),
        ("Größe und Gewicht", "gewicht und GRÖSSE", "Preis und Lieferung"),
    ],
)
async def test_texts_that_share_words_are_nearer_than_those_that_do_not(text: str, near: str, far: str) -> None:
    assert await cosine(text, near) > 0.5 > await cosine(text, far)


async def test_common_words_make_nothing_near() -> None:
    assert await cosine("Is it in the office of the bank?", "Is it on the roof of the house?") < 0.35


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
async def test_vectors_have_length_one_or_none_and_a_text_is_nearest_to_itself(texts: list[str]) -> None:
    vectors = (await WordVectors().embed(texts)).vectors
    assert vectors.shape == (len(texts), DIMENSIONS)
    assert vectors.dtype == np.float32
    for length in np.linalg.norm(vectors, axis=1):
        assert length == pytest.approx(1, abs=1e-5) or length == 0


async def test_order_and_punctuation_change_nothing_and_blank_texts_have_no_direction() -> None:
    assert await cosine("blue green, red!", "RED blue – green") == pytest.approx(1)
    assert await cosine("blue", " \n ") == 0


async def test_another_process_gives_the_same_vector() -> None:
    program = (
        "import asyncio, sys; from serve_app.embeddings.word_vectors import WordVectors;"
        "sys.stdout.buffer.write(asyncio.run(WordVectors().embed(['The quick brown fox'])).vectors.tobytes())"
    )
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(other.communicate(), 60)
    assert said == (await WordVectors().embed(["The quick brown fox"])).vectors.tobytes()
