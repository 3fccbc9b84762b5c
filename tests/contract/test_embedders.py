"""The embedder port: the built-in one, and the openai SDK over real sockets, to the simulated provider and to a bad one."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.server import CompanionServer, CompanionSettings
from serve_app.credentials import Secrets
from serve_app.embeddings.connect import connect_embedders
from serve_app.embeddings.openai_embedder import OpenAIEmbedder
from serve_app.embeddings.port import Embedder
from serve_app.errors import ConfigError, DeadlineExceeded, NotFound, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.config import AzureProviderConfig, OpenAIProviderConfig, PriceConfig
from serve_app.models.pricing import price_of
from serve_app.settings import Settings
from tests.simulators.models.wire_server import Answer, Exchange, WireServer, error_body, reply

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture
async def provider() -> AsyncIterator[CompanionServer]:
    settings = CompanionSettings(port=0, only=("provider",), provider=ProviderSettings(api_key=KEY))
    async with CompanionServer(settings) as server:
        yield server


@pytest.fixture(params=["words", "openai", "azure"])
async def embedder(request: pytest.FixtureRequest, provider: CompanionServer) -> AsyncIterator[Embedder]:
    if request.param == "words":
        yield connect_embedders(Settings(), Secrets(), None).embedder("words")
        return
    config: OpenAIProviderConfig | AzureProviderConfig
    if request.param == "openai":
        config = OpenAIProviderConfig(name="test", kind="openai", base_url=f"{provider.url}/v1")
    else:
        config = AzureProviderConfig(
            name="test", kind="azure", endpoint=provider.url, api_version="2024-10-21", api_key_env="KEY"
        )
    made = OpenAIEmbedder(config, KEY, "text-embedding-3-small")
    yield made
    await made.aclose()


async def test_each_text_has_a_vector_of_length_one_in_its_place(embedder: Embedder) -> None:
    texts = ["Contoso has open deals", "Leave is left", "Contoso has open deals"]
    vectors = (await embedder.embed(texts)).vectors
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert vectors[0].tolist() == vectors[2].tolist()
    assert vectors[0] @ vectors[2] > 0.99 > 0.5 > vectors[0] @ vectors[1]
    again = await embedder.embed(texts[1:2])
    assert again.vectors[0].tolist() == vectors[1].tolist()
    assert again.usage.input_tokens == 0


async def test_texts_without_content_have_no_direction(embedder: Embedder) -> None:
    vectors = (await embedder.embed(["", "Contoso", " \n"])).vectors
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([0, 1, 0], abs=1e-4)
    assert (await embedder.embed(["", ""])).vectors.any() == np.False_


async def test_many_small_questions_at_once_are_all_answered(embedder: Embedder) -> None:
    found = await asyncio.gather(*(embedder.embed([f"question number {number}"]) for number in range(300)))
    assert len(found) == 300
    assert len({one.vectors.tobytes() for one in found}) > 200


async def test_an_unknown_provider_is_told_with_those_there_are(tmp_path: Path) -> None:
    embedders = connect_embedders(
        Settings(models=_models(tmp_path, "http://127.0.0.1:9/v1")), Secrets(openai_api_key=SecretStr(KEY)), None
    )
    with pytest.raises(ConfigError, match=r"'nowhere' is not configured.*mine"):
        embedders.embedder("m", "nowhere")
    await embedders.aclose()


async def test_a_model_of_the_models_file_goes_by_its_upstream_name_and_price(
    tmp_path: Path, provider: CompanionServer
) -> None:
    settings = Settings(models=_models(tmp_path, f"{provider.url}/v1"))
    embedders = connect_embedders(settings, Secrets(openai_api_key=SecretStr(KEY)), None)
    embedder = embedders.embedder("small")
    assert embedder is embedders.embedder("small", "mine")
    found = await embedder.embed(["Contoso has open deals"])
    assert embedder.name == "mine/text-embedding-3-small"
    assert found.usage.input_tokens > 0
    assert found.usage.cost_microusd == found.usage.input_tokens * 1000
    await embedders.aclose()


async def test_without_any_provider_the_simulated_one_embeds(provider: CompanionServer) -> None:
    async with CompanionServer(CompanionSettings(port=0, only=("provider",))) as server:
        embedders = connect_embedders(Settings(), Secrets(), f"{server.url}/v1")
        found = await embedders.embedder("anything").embed(["Contoso"])
        assert found.vectors.shape[0] == 1
        await embedders.aclose()


def _models(folder: Path, base_url: str) -> Path:
    path = folder / "models.yaml"
    models = [{"id": "small", "upstream": "text-embedding-3-small", "price": {"input": 1000, "output": 0}}]
    provider = {
        "name": "mine", "kind": "openai", "base_url": base_url, "api_key_env": "OPENAI_API_KEY", "models": models,
    }  # fmt: skip
    path.write_text(json.dumps({"providers": [provider]}))
    return path


# A provider that misbehaves


def vectors(*rows: list[float], tokens: int = 3, as_base64: bool = False) -> Answer:
    def written(row: list[float]) -> Any:
        return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() if as_base64 else row

    data = [{"object": "embedding", "index": at, "embedding": written(row)} for at, row in enumerate(rows)]
    body = {
        "object": "list", "data": data[::-1], "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip
    return reply(200, body)


def at(server: WireServer, timeout_s: float = 30.0) -> OpenAIEmbedder:
    config = OpenAIProviderConfig(name="test", kind="openai", base_url=server.base_url)
    price = price_of(PriceConfig(input=2.0, output=0))
    return OpenAIEmbedder(config, KEY, "m", price, first_wait_s=0.001, timeout_s=timeout_s)


@pytest.mark.parametrize("as_base64", [True, False])
async def test_vectors_are_put_in_order_and_brought_to_length_one(as_base64: bool) -> None:
    async with WireServer(vectors([3, 4], [0, 2], tokens=50, as_base64=as_base64)) as server:
        embedder = at(server)
        found = await embedder.embed(["a", "b"])
        assert found.vectors.tolist() == pytest.approx(np.array([[0.6, 0.8], [0, 1]]))
        assert (found.usage.input_tokens, found.usage.cost_microusd) == (50, 100)
        (request,) = server.requests
        assert (request.path, request.json["input"], request.json["model"]) == ("/v1/embeddings", ["a", "b"], "m")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        await embedder.aclose()


async def test_what_passes_is_asked_again() -> None:
    busy = reply(429, error_body("Slow down.", "rate_limit_exceeded"), **{"retry-after-ms": "5"})
    async with WireServer(busy, reply(503, error_body("Down.")), _drop, vectors([1, 0])) as server:
        embedder = at(server)
        assert (await embedder.embed(["a"])).vectors.tolist() == [[1, 0]]
        assert len(server.requests) == 4
        await embedder.aclose()


@pytest.mark.parametrize(
    ("answer", "error", "requests"),
    [
        (reply(429, error_body("Slow down.", "rate_limit_exceeded")), QuotaExceeded, 4),
        (reply(401, error_body("No.", "invalid_api_key")), UpstreamFailed, 1),
        (reply(404, error_body("No such model.", "model_not_found")), NotFound, 1),
        (vectors(), UpstreamFailed, 4),
        (vectors([1.0], [1.0]), UpstreamFailed, 4),
        (vectors([float("nan"), 1.0], as_base64=True), UpstreamFailed, 4),
        (reply(200, b"<html>", "text/html"), UpstreamFailed, 4),
    ],
)  # fmt: skip
async def test_what_does_not_pass_is_told(answer: Answer, error: type[ParleyError], requests: int) -> None:
    async with WireServer(answer) as server:
        embedder = at(server)
        with pytest.raises(error) as caught:
            await embedder.embed(["a"])
        assert KEY not in caught.value.message
        assert len(server.requests) == requests
        await embedder.aclose()


async def test_a_text_that_the_provider_refuses_is_refused_alone() -> None:
    async def picky(exchange: Exchange) -> None:
        texts = exchange.request.json["input"]
        if "too long" in texts:
            await exchange.reply(400, error_body("This is too long."))
        else:
            await vectors(*([float(len(text)), 1.0] for text in texts))(exchange)

    async with WireServer(picky) as server:
        embedder = at(server)
        answers = await asyncio.gather(
            *(embedder.embed([text]) for text in ("a", "bb", "too long", "dddd")), return_exceptions=True
        )
        assert [isinstance(answer, ParleyError) for answer in answers] == [False, False, True, False]
        await embedder.aclose()


async def test_silence_has_an_end() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.until_hung_up()

    async with WireServer(silent) as server:
        embedder = at(server, timeout_s=0.05)
        with pytest.raises(DeadlineExceeded):
            await embedder.embed(["a"])
        await embedder.aclose()


async def _drop(exchange: Exchange) -> None:
    exchange.drop()
