"""Embeddings over the real SDK: near where words are shared, the same in both encodings, and refused as the service refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import openai
import pytest
from openai import AsyncAzureOpenAI

from tests.simulators.companions.conftest import StartProvider, client_of

TEXTS = ["How many deals has Contoso?", "Contoso's deals: how many?", "Leave of Maria Keller"]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_texts_that_share_words_are_near_and_vectors_have_length_one(start_provider: StartProvider) -> None:
    async with client_of(await start_provider()) as client:
        answer = await client.embeddings.create(model="any", input=TEXTS)
        first, second, third = (one.embedding for one in answer.data)
        assert [one.index for one in answer.data] == [0, 1, 2]
        assert len(first) == 256
        assert all(math.isclose(cosine(one, one), 1, rel_tol=1e-5) for one in (first, second, third))
        assert cosine(first, second) > 0.9
        assert abs(cosine(first, third)) < 0.3
        assert answer.usage.prompt_tokens == sum(len(text) // 4 for text in TEXTS)


async def test_both_encodings_carry_the_same_vector_of_the_length_asked_for(start_provider: StartProvider) -> None:
    async with client_of(await start_provider()) as client:
        packed = await client.embeddings.create(model="any", input=TEXTS[0], dimensions=64, encoding_format="base64")
        plain = await client.embeddings.create(model="any", input=TEXTS[0], dimensions=64, encoding_format="float")
        usual = await client.embeddings.create(model="any", input=TEXTS[0], dimensions=64)
        text: object = packed.data[0].embedding  # the SDK leaves what it was asked to leave
        assert isinstance(text, str)
        assert len(plain.data[0].embedding) == 64
        assert usual.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


async def test_azures_path_names_the_deployment(start_provider: StartProvider) -> None:
    server = await start_provider()
    async with AsyncAzureOpenAI(
        azure_endpoint=server.url, api_key="x", api_version="2024-10-21", max_retries=0
    ) as client:
        answer = await client.embeddings.create(model="my-deployment", input="x")
        assert answer.model == "my-deployment"


@pytest.mark.parametrize("wrong", [[], "", ["a", ""], ["x"] * 2049, "x" * 40_000])
async def test_inputs_that_the_service_refuses_are_refused(
    start_provider: StartProvider, wrong: str | list[str]
) -> None:
    async with client_of(await start_provider()) as client:
        with pytest.raises(openai.BadRequestError):
            await client.embeddings.create(model="any", input=wrong)


async def test_key_and_model_are_checked_as_for_chat(start_provider: StartProvider) -> None:
    server = await start_provider(api_key="secret", only_listed_models=True)
    async with client_of(server) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.embeddings.create(model="simulated-chat", input="x")
    async with client_of(server, api_key="secret") as client:
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="unheard-of", input="x")
        assert (await client.embeddings.create(model="simulated-chat", input="…")).data[0].embedding[0] == 1.0
