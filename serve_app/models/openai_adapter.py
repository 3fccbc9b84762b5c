"""One provider that speaks OpenAI's chat completions, through the openai SDK.

The SDK makes URLs, credentials and errors. The answer's bytes are read here, and decoded once per read: its own iterator
builds a pydantic model per chunk, which cost more than everything else in a streamed turn. For the same reason requests
go through the SDK's ``post``, where a body is sent as it is, and not through ``chat.completions.create``, which walks
every message and tool by their types (several milliseconds for a usual history).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx2
import msgspec
import openai

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError
from serve_app.models.config import AzureProviderConfig, LocalProviderConfig, OpenAIProviderConfig
from serve_app.models.failures import ProviderFailures
from serve_app.models.http_client import TRANSPORT_ERRORS
from serve_app.models.openai_assembly import OpenAIAssembly
from serve_app.models.openai_client import make_client
from serve_app.models.port import TextSink
from serve_app.models.streaming import Pace, request_headers, run_call
from serve_app.models.wire import UNREADABLE, ModelList, request_body, tool_names

_SDK_ERRORS = (openai.OpenAIError, *TRANSPORT_ERRORS)
_JSON = {"content-type": "application/json"}


class OpenAIAdapter:
    """Implements ``ProviderAdapter``."""

    def __init__(
        self,
        config: OpenAIProviderConfig | AzureProviderConfig | LocalProviderConfig,
        api_key: str | None,
        max_response_bytes: int,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._pace = Pace.of(config, max_response_bytes)
        self._base_url = config.endpoint if isinstance(config, AzureProviderConfig) else config.base_url
        self._failures = ProviderFailures(config.name, self._base_url, config.api_key_env, api_key)
        self._client = make_client(config, self._base_url, api_key, http_client)

    def with_key(self, api_key: str) -> OpenAIAdapter:
        other = copy.copy(self)
        other._failures = ProviderFailures(self.name, self._base_url, "your tenant's own key", api_key)
        other._client = self._client.with_options(api_key=api_key)
        return other

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        names = tool_names(request)
        body = request_body(
            request,
            upstream or model,
            names,
            self._config.max_tokens_field,
            self._config.stream_usage,
            max_output_tokens,
        )
        assembly = OpenAIAssembly(names, self._failures, self._pace.max_bytes)
        send = partial(self._send, body, model, request_headers(request))
        return await run_call(request, model, assembly, on_text, send, self._failures, self._pace)

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        """The names at the provider's ``/models``."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.get("/models", cast_to=httpx2.Response)
            return tuple(entry.id for entry in msgspec.json.decode(response.content, type=ModelList).data)
        except TimeoutError:
            raise DeadlineExceeded(f"The model provider {self.name!r} did not answer within {timeout_s:g} s.") from None
        except UNREADABLE:
            raise self._failures.not_a_stream() from None
        except _SDK_ERRORS as error:
            raise self._failure(error) from error

    async def aclose(self) -> None:
        await self._client.close()

    async def _send(self, body: Mapping[str, Any], model: str, headers: dict[str, str]) -> httpx2.Response:
        try:
            if isinstance(self._config, AzureProviderConfig):  # the SDK looks into the body for the deployment's name
                response = await self._client.post(
                    "/chat/completions", body=body, cast_to=httpx2.Response, stream=True, options={"headers": headers}
                )
            else:
                response = await self._client.post(
                    "/chat/completions",
                    content=msgspec.json.encode(body),
                    cast_to=httpx2.Response,
                    stream=True,
                    options={"headers": _JSON | headers},
                )
        except _SDK_ERRORS as error:
            raise self._failure(error, model) from error
        except UnicodeEncodeError as error:
            raise InvalidInput("The prompt holds half a character (a lone surrogate), which cannot be sent.") from error
        except ValueError as error:  # the SDK will not make a URL of such a deployment's name
            raise InvalidInput(f"The model's name {model!r} cannot be used at this provider.") from error
        if not isinstance(response, httpx2.Response):  # pragma: no cover - cast_to says so
            raise TypeError("the SDK gave no raw response")
        return response

    def _failure(self, error: BaseException, model: str | None = None) -> ParleyError:
        if isinstance(error, openai.APIStatusError):
            return self._failures.of_status(error.status_code, error.response.headers, error.body, model)
        return self._failures.of(error)
