"""Anthropic's models, through the anthropic SDK, which makes URLs, credentials and errors; the answer's bytes are read here."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import anthropic
import httpx2
import msgspec
from anthropic import AsyncAnthropic, AsyncStream

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError
from serve_app.models.anthropic_assembly import AnthropicAssembly
from serve_app.models.anthropic_wire import ModelList, request_body
from serve_app.models.config import AnthropicProviderConfig
from serve_app.models.failures import ProviderFailures
from serve_app.models.http_client import TRANSPORT_ERRORS, make_http_client, request_timeout, without_credential
from serve_app.models.port import TextSink
from serve_app.models.streaming import Pace, request_headers, run_call
from serve_app.models.wire import UNREADABLE, tool_names

_SDK_ERRORS = (anthropic.AnthropicError, *TRANSPORT_ERRORS)
_JSON = {"content-type": "application/json"}
_MOST_LISTED = 1000
_NO_KEY = "none"
_CREDENTIALS = ("authorization", "x-api-key")


class AnthropicAdapter:
    """Implements ``ProviderAdapter``."""

    def __init__(self, config: AnthropicProviderConfig, api_key: str | None, max_response_bytes: int) -> None:
        self.name = config.name
        self._config = config
        self._pace = Pace.of(config, max_response_bytes)
        self._failures = ProviderFailures(config.name, config.base_url, config.api_key_env, api_key)
        self._client = AsyncAnthropic(
            # Without one it would look for a key, a token or a profile of its own on this machine.
            api_key=api_key or _NO_KEY,
            base_url=config.base_url,
            max_retries=0,
            timeout=request_timeout(config),
            http_client=make_http_client(
                config, config.base_url, [] if api_key else [without_credential(name, _NO_KEY) for name in _CREDENTIALS]
            ),
            open_telemetry=False,
        )

    def with_key(self, api_key: str) -> AnthropicAdapter:
        other = copy.copy(self)
        other._failures = ProviderFailures(self.name, self._config.base_url, "your tenant's own key", api_key)
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
        body = request_body(request, upstream or model, names, self._config, max_output_tokens)
        assembly = AnthropicAssembly(names, self._failures, self._pace.max_bytes)
        send = partial(self._send, body, model, request_headers(request))
        return await run_call(request, model, assembly, on_text, send, self._failures, self._pace)

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        """The newest models at the provider's ``/v1/models``, 1000 at most."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.get(
                    "/v1/models", cast_to=httpx2.Response, options={"params": {"limit": _MOST_LISTED}}
                )
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
            response: Any = await self._client.post(
                "/v1/messages",
                content=msgspec.json.encode(body),
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=AsyncStream[Any],
                options={"headers": _JSON | headers},
            )
        except _SDK_ERRORS as error:
            raise self._failure(error, model) from error
        except UnicodeEncodeError as error:
            raise InvalidInput("The prompt holds half a character (a lone surrogate), which cannot be sent.") from error
        if not isinstance(response, httpx2.Response):  # pragma: no cover - cast_to says so
            raise TypeError("the SDK gave no raw response")
        return response

    def _failure(self, error: BaseException, model: str | None = None) -> ParleyError:
        if isinstance(error, anthropic.APIStatusError):
            return self._failures.of_status(error.status_code, error.response.headers, error.body, model)
        return self._failures.of(error)
