"""A model of this cluster: what the models file may say, the stage that comes of it, and how the gateway calls it.

Ray Serve LLM's configuration, builder and server are the real ones; in place of vLLM is an engine that says what it is told.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import serve
from ray.serve import Application

from deployments.graph import graph
from deployments.local_model import RemoteLocalModel, bind_local_model, llm_config_of
from serve_app.credentials import Secrets
from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.errors import ConfigError, InvalidInput, ParleyError, StageUnavailable
from serve_app.models.adapters import make_adapter
from serve_app.models.config import LocalProviderConfig
from serve_app.models.connect import connect, local_providers
from serve_app.settings import CompanionSettings, Settings
from serve_app.telemetry import MemoryMetrics
from tests.simulators.local_model.without_gpu import Engine, ErrorInfo, ErrorResponse, ray_serve_llm

FILE = """
providers:
  - name: ours
    kind: local
    source: Qwen/Qwen2.5-0.5B-Instruct
    accelerator: L4
    engine_kwargs: {tensor_parallel_size: 2}
    max_replicas: 3
    models: [{id: qwen, context_tokens: 8192}]
    chat_default: qwen
"""


@pytest.fixture
def llm() -> Iterator[None]:
    with ray_serve_llm():
        yield


def settings(folder: Path, text: str = FILE) -> Settings:
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    return Settings(models=folder / "models.yaml", companions=CompanionSettings(provider="off", tools=False))


def provider(folder: Path, text: str = FILE) -> LocalProviderConfig:
    (found,) = local_providers(settings(folder, text), Secrets())
    return found


# What the file may say


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("source: Qwen/Qwen2.5-0.5B-Instruct", "sauce: x"), "providers[0].sauce: is no known key"),
        (("    source: Qwen/Qwen2.5-0.5B-Instruct\n", ""), "providers[0].source"),
        (("max_replicas: 3", "max_replicas: 3\n    min_replicas: 4"), "max_replicas must not be less"),
        (("models: [{id: qwen, context_tokens: 8192}]", 'models: "*"'), "providers[0].models"),
        (("models: [{id: qwen, context_tokens: 8192}]", "models: [qwen, other]"), "at most 1 item"),
        (("max_replicas: 3", "base_url: http://127.0.0.1/v1"), "providers[0].base_url: is no known key"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        provider(tmp_path, FILE.replace(*change))
    assert words in str(raised.value)


def test_what_only_ray_serve_llm_knows_to_be_wrong_is_said_in_its_words(tmp_path: Path, llm: None) -> None:
    with pytest.raises(ConfigError, match=r"provider 'ours'.*accelerator_type: Unsupported accelerator type: XYZ"):
        llm_config_of(provider(tmp_path, FILE.replace("L4", "XYZ")))


def test_an_argument_that_the_engine_does_not_have_is_named(tmp_path: Path, llm: None) -> None:
    with pytest.raises(ConfigError, match=r"provider 'ours'.*Unknown engine argument: tensor_size"):
        graph(settings(tmp_path, FILE.replace("tensor_parallel_size", "tensor_size")), Secrets())


def test_without_ray_serve_llm_it_is_said_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'parley\[local-model\]'"):
        graph(settings(tmp_path), Secrets())


# The stage


def test_the_graph_has_a_stage_for_it_that_only_the_gateway_is_bound_to(tmp_path: Path, llm: None) -> None:
    application = graph(settings(tmp_path), Secrets())
    peers: Any = application._bound_deployment.init_kwargs
    gateway = peers["models"]
    assert "local_ours" not in peers
    stage = gateway._bound_deployment.init_kwargs["local_ours"]
    assert isinstance(stage, Application)
    assert stage._bound_deployment.name == "LocalModel:ours"


def test_the_stage_has_what_the_file_says(tmp_path: Path, llm: None) -> None:
    stage = bind_local_model(provider(tmp_path))._bound_deployment
    given: Any = stage.init_kwargs
    config = given["llm_config"]
    assert config.model_loading_config.model_id == "qwen"
    assert config.model_loading_config.model_source == "Qwen/Qwen2.5-0.5B-Instruct"
    assert config.engine_kwargs == {"tensor_parallel_size": 2, "max_model_len": 8192}
    scaling = stage._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
    bundles = stage._replica_config.placement_group_bundles
    assert bundles is not None
    assert sum(bundle.get("GPU", 0) for bundle in bundles) == 2, "one for each part of the model"


# Calls


class Local:
    """The stage's server as the gateway's handle gives it, without the handle."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        from deployments.local_model_server import LocalModelServer

        class Server(LocalModelServer):
            def __del__(self) -> None:  # type: ignore[override]  # Serve awaits it
                """There is nothing to shut down."""

        self.engine = engine
        self.server: Any = Server.sync_init(llm_config_of(provider(folder)), engine_cls=Engine)  # type: ignore[arg-type]
        vars(self.server)["engine"] = engine

    def complete(self, body: bytes) -> AsyncIterator[bytes]:
        parts: AsyncIterator[bytes] = self.server.complete(body)
        return parts

    async def models(self) -> list[str]:
        names: list[str] = await self.server.models()
        return names


def chunk(**delta: Any) -> str:
    finish = delta.pop("finish_reason", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


USAGE = f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 7, 'completion_tokens': 2}})}\n\n"
ANSWER = (chunk(content="Hel"), chunk(content="lo"), chunk(finish_reason="stop"), USAGE, "data: [DONE]\n\n")


def asked() -> ModelRequest:
    return ModelRequest(messages=(ModelMessage(role="user", content="Hi"),), deadline=time.time() + 30)


async def test_the_gateway_has_its_answer_from_the_stage(tmp_path: Path, llm: None) -> None:
    local = Local(tmp_path, Engine(ANSWER))
    gateway = await connect(settings(tmp_path), Secrets(), MemoryMetrics(), None, local={"ours": local})
    shown: list[str] = []
    generation = await gateway.generate(asked(), shown.extend)
    (state,) = await gateway.check()
    await gateway.aclose()
    assert "".join(shown) == generation.text == "Hello"
    assert generation.model_id == "qwen"
    assert (generation.usage.input_tokens, generation.usage.output_tokens) == (7, 2)
    assert state.ok
    (request,) = local.engine.asked
    assert request.model == "qwen"
    assert request.stream
    assert request.messages == [{"role": "user", "content": "Hi"}]


async def failed(folder: Path, *parts: str | ErrorResponse) -> ParleyError:
    local = Local(folder, Engine(parts))
    adapter = make_adapter(provider(folder), None, 1_000_000, {"ours": local})
    with pytest.raises(ParleyError) as raised:
        await adapter.generate(asked(), lambda _: None, "qwen")
    await adapter.aclose()
    return raised.value


async def test_what_the_engine_refuses_is_refused(tmp_path: Path, llm: None) -> None:
    error = await failed(tmp_path, ErrorResponse(error=ErrorInfo(message="This prompt is too long.", code=400)))
    assert isinstance(error, InvalidInput)
    assert "too long" in str(error)


async def test_a_stream_that_ends_without_its_reason_or_in_an_error_is_no_answer(tmp_path: Path, llm: None) -> None:
    assert (await failed(tmp_path, chunk(content="Hel"))).code == "upstream_failed"
    broken = ErrorResponse(error=ErrorInfo(message="The engine died.", code=500))
    assert (await failed(tmp_path, chunk(content="Hel"), broken)).code == "upstream_failed"


async def test_whoever_stops_listening_stops_the_engine(tmp_path: Path, llm: None) -> None:
    local = Local(tmp_path, Engine([chunk(content="x")] * 1_000_000))
    answer = local.complete(json.dumps({"model": "qwen", "messages": [], "stream": True}).encode())
    assert await anext(answer) == b"200"
    assert b"content" in await anext(answer)
    await answer.aclose()  # type: ignore[attr-defined]
    for _ in range(100):
        await asyncio.sleep(0)
    assert local.engine.stopped


class Away:
    """A stage that cannot be reached, or goes in the middle."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def complete(self, body: bytes) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part
        raise StageUnavailable("The local model's stage is away; try again in a moment.", None, 2.0)

    async def models(self) -> list[str]:
        raise StageUnavailable("The local model's stage is away; try again in a moment.", None, 2.0)


@pytest.mark.parametrize("parts", [(), (b"200", chunk(content="Hel").encode())])
async def test_a_stage_that_is_away_is_a_failure_that_can_be_retried(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    adapter = make_adapter(provider(tmp_path), None, 1_000_000, {"ours": Away(*parts)})
    with pytest.raises(ParleyError) as raised:
        await adapter.generate(asked(), lambda _: None, "qwen")
    assert raised.value.retryable
    with pytest.raises(ParleyError):
        await adapter.list_models(5.0)
    await adapter.aclose()


class Stage:
    """A stage behind a real handle, in this process."""

    async def complete(self, body: bytes) -> AsyncIterator[bytes]:
        yield b"200"
        for part in ANSWER:
            yield part.encode()

    async def models(self) -> list[str]:
        return ["qwen"]


async def test_by_handle_it_is_the_same(tmp_path: Path) -> None:
    stage: Any = serve.deployment(Stage)
    handle = await asyncio.to_thread(serve.run, stage.bind(), _local_testing_mode=True)
    adapter = make_adapter(provider(tmp_path), None, 1_000_000, {"ours": RemoteLocalModel(handle)})
    generation = await adapter.generate(asked(), lambda _: None, "qwen")
    assert generation.text == "Hello"
    assert await adapter.list_models(5.0) == ("qwen",)
    await adapter.aclose()


def test_a_provider_whose_stage_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start the graph again"):
        make_adapter(provider(tmp_path), None, 1_000_000)
