"""Ray Serve LLM without vLLM: the real classes of Ray, over stand-ins for the packages that need a GPU's machine.

What stands in has no behaviour of its own: a request is whatever JSON object it is made from, and an engine says what a test
gives it to say.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel, ConfigDict

STANDING_IN = ("vllm", "pyarrow")
OURS = "deployments.local_model_server"


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatCompletionRequest(Anything):
    model: str
    messages: list[dict[str, Any]]
    stream: bool = False


class ErrorInfo(Anything):
    message: str
    code: int


class ErrorResponse(Anything):
    error: ErrorInfo


@dataclass
class AsyncEngineArgs:
    """Some of the engine's; Ray refuses what is none of them."""

    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    quantization: str | None = None


@dataclass
class FrontendArgs:
    """None of these is needed."""


_KNOWN: dict[str, type] = {
    "AsyncEngineArgs": AsyncEngineArgs,
    "FrontendArgs": FrontendArgs,
    "ChatCompletionRequest": ChatCompletionRequest,
    "ErrorResponse": ErrorResponse,
    "ErrorInfo": ErrorInfo,
}


class _StandIn(ModuleType):
    """A module that has every name: a class that holds anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _KNOWN.get(name) or type(name, (Anything,), {})
        setattr(self, name, made)
        return made


class _Finder:
    @staticmethod
    def find_spec(name: str, *_: object) -> Any:
        if name.split(".")[0] not in STANDING_IN:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, _Loader(), is_package=True)  # type: ignore[arg-type]


class _Loader:
    @staticmethod
    def create_module(spec: Any) -> ModuleType:
        return _StandIn(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing runs."""


@contextmanager
def ray_serve_llm() -> Iterator[None]:
    """While this is open Ray Serve LLM can be imported, and builds stages without asking a cluster for anything."""
    before = set(sys.modules)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    finder: Any = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        from ray.llm._internal.serve.core.server import llm_server

        with patch.object(vars(llm_server)["ray"], "get_runtime_context", return_value=SimpleNamespace(runtime_env={})):
            yield
    finally:
        sys.meta_path.remove(finder)
        root.handlers[:] = handlers  # it sets up logging for a process of its own, and this one runs other tests, too
        root.setLevel(level)
        for name in set(sys.modules) - before:
            if name == OURS or name.startswith(("ray.llm", "ray.serve.llm", *STANDING_IN)):
                del sys.modules[name]


class Engine:
    """Says ``parts`` to every chat, and remembers what it was asked."""

    def __init__(self, parts: Sequence[str | ErrorResponse]) -> None:
        self.parts = parts
        self.asked: list[ChatCompletionRequest] = []
        self.stopped = False

    async def chat(self, request: ChatCompletionRequest, _: object = None) -> AsyncIterator[str | ErrorResponse]:
        self.asked.append(request)
        try:
            for part in self.parts:
                await asyncio.sleep(0)
                yield part
        finally:
            self.stopped = True

    async def check_health(self) -> None:
        """It is well."""

    async def shutdown(self) -> None:
        """There is nothing to stop."""
