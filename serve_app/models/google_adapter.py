"""Google's models, through the google-genai SDK.

The SDK makes URLs, credentials and errors. Its own iterator knows no end of a stream, builds pydantic models, and leaves the
connection open when its reader stops; so the answer is taken from the HTTP client it was given (``_keep``), and the SDK
finds an empty one. The request's body is ours as well, given as the SDK's ``extra_body``: it would walk all of a history by
its types.
"""

from __future__ import annotations

import asyncio
import copy
import re
from contextvars import ContextVar
from functools import partial
from typing import Any

import httpx2
import msgspec
from google import genai
from google.genai import errors, types

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError, UpstreamFailed
from serve_app.models.config import GoogleProviderConfig
from serve_app.models.failures import ProviderFailures
from serve_app.models.google_assembly import GoogleAssembly
from serve_app.models.google_wire import request_body
from serve_app.models.http_client import TRANSPORT_ERRORS, make_http_client, without_credential
from serve_app.models.port import TextSink
from serve_app.models.streaming import Pace, request_headers, run_call
from serve_app.models.wire import tool_names

_SDK_ERRORS = (errors.APIError, errors.UnknownApiResponseError, *TRANSPORT_ERRORS)
_KEY_HEADER = "x-goog-api-key"
_NO_KEY = "none"
_PREFIX = "models/"
_GENERATES = "generateContent"
_MOST_LISTED = 1000
_REPLACED = "-"  # the SDK insists on contents; ours are in the extra body
_USABLE_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/@-]*")

_kept: ContextVar[list[httpx2.Response] | None] = ContextVar("kept", default=None)
"""Where the answer to the request that the SDK sends in this context goes."""


class GoogleAdapter:
    """Implements ``ProviderAdapter``."""

    def __init__(self, config: GoogleProviderConfig, api_key: str | None, max_response_bytes: int) -> None:
        self.name = config.name
        self._config = config
        self._pace = Pace.of(config, max_response_bytes)
        self._failures = ProviderFailures(config.name, config.base_url, config.api_key_env, api_key)
        self._http = make_http_client(
            config,
            config.base_url,
            [] if api_key else [without_credential(_KEY_HEADER, _NO_KEY)],
            [_keep],
        )
        self._client = genai.Client(
            vertexai=False,
            api_key=api_key or _NO_KEY,  # the SDK insists on one
            http_options=types.HttpOptions(
                base_url=config.base_url, api_version=config.api_version, httpx_async_client=self._http
            ),
        )
        self._key_headers: dict[str, str] = {}

    def with_key(self, api_key: str) -> GoogleAdapter:
        other = copy.copy(self)
        other._failures = ProviderFailures(self.name, self._config.base_url, "your tenant's own key", api_key)
        other._key_headers = {_KEY_HEADER: api_key}
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
        wire_model = upstream or model
        body = request_body(request, wire_model, names, max_output_tokens)
        assembly = GoogleAssembly(names, self._failures, self._pace.max_bytes)
        send = partial(self._send, body, wire_model, model, request_headers(request))
        return await run_call(request, model, assembly, on_text, send, self._failures, self._pace)

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        """The models at the provider's ``/models`` that generate, 1000 at most."""
        try:
            async with asyncio.timeout(timeout_s):
                pager = await self._client.aio.models.list(
                    config=types.ListModelsConfig(
                        page_size=_MOST_LISTED, http_options=types.HttpOptions(headers=self._key_headers)
                    )
                )
            return tuple(
                (model.name or "").removeprefix(_PREFIX)
                for model in pager.page
                if model.supported_actions is None or _GENERATES in model.supported_actions
            )
        except TimeoutError:
            raise DeadlineExceeded(f"The model provider {self.name!r} did not answer within {timeout_s:g} s.") from None
        except _SDK_ERRORS as error:
            raise self._failure(error) from error
        except ValueError:  # pydantic's own among them
            raise self._failures.not_a_stream() from None

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _send(
        self, body: dict[str, Any], wire_model: str, model: str, headers: dict[str, str]
    ) -> httpx2.Response:
        if not _USABLE_NAME.fullmatch(wire_model):  # it becomes a part of the address
            raise InvalidInput(f"The model's name {model!r} cannot be used at this provider.")
        kept: list[httpx2.Response] = []
        token = _kept.set(kept)
        try:
            msgspec.json.encode(body)  # refuses half a character, which the SDK would send
            stream = await self._client.aio.models.generate_content_stream(
                model=wire_model,
                contents=_REPLACED,
                config=types.GenerateContentConfig(
                    http_options=types.HttpOptions(headers=headers | self._key_headers, extra_body=body),
                    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                    automatic_continuation=False,
                ),
            )
            async for _ in stream:
                raise UpstreamFailed("the SDK read an answer that was not left to it")  # pragma: no cover
        except _SDK_ERRORS as error:
            raise self._failure(error, model) from error
        except UnicodeEncodeError as error:
            raise InvalidInput("The prompt holds half a character (a lone surrogate), which cannot be sent.") from error
        except BaseException:
            for response in kept:
                await response.aclose()
            raise
        finally:
            _kept.reset(token)
        if not kept:  # pragma: no cover - the hook sees every success
            raise TypeError("the SDK sent no request")
        return kept[0]

    def _failure(self, error: BaseException, model: str | None = None) -> ParleyError:
        if isinstance(error, errors.APIError):
            headers = getattr(error.response, "headers", None) or {}
            return self._failures.of_status(error.code, headers, error.details, model)
        if isinstance(error, errors.UnknownApiResponseError):
            return self._failures.not_a_stream()
        return self._failures.of(error)


async def _keep(response: httpx2.Response) -> None:
    """Takes the body of a success away from the SDK, where somebody waits for it."""
    kept = _kept.get()
    if kept is None or response.status_code != 200 or not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    kept.append(
        httpx2.Response(
            status_code=response.status_code,
            headers=response.headers,
            stream=response.stream,
            request=response.request,
            extensions=response.extensions,
        )
    )
    response.stream = httpx2.ByteStream(b"")
