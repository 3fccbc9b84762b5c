"""One provider that speaks OpenAI's chat completions, through the openai SDK.

The SDK makes URLs, credentials and errors. The answer's bytes are read here, and decoded once per read: its own iterator
builds a pydantic model per chunk, which cost more than everything else in a streamed turn. For the same reason requests
go through the SDK's ``post``, where a body is sent as it is, and not through ``chat.completions.create``, which walks
every message and tool by their types (several milliseconds for a usual history).

A call has one deadline around everything, a bound on silence between reads, and a bound on the answer's size. Attempts
are repeated only while no text has been handed on. However a call ends, its response is closed before ``generate`` returns.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import AsyncIterator

import httpx2
import msgspec

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.assembly import Assembly
from serve_app.models.config import AzureProviderConfig, OpenAIProviderConfig
from serve_app.models.failures import PROVIDER_ERRORS, ProviderFailures
from serve_app.models.openai_client import ERROR_BODY_BYTES, make_client
from serve_app.models.port import TextSink
from serve_app.models.sse import EventTooLarge, SSEDecoder
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import UNREADABLE, ModelList, request_body, tool_names
from serve_app.telemetry import logger

_MAX_RETRY_WAIT_S = 10.0
_FIRST_RETRY_S = 0.25
_USAGE_WAIT_S = 2.0  # for the count of tokens, once the model has ended
_CLOSE_WAIT_S = 0.1  # for the end of the body after [DONE], which lets the connection be used again

log = logger("models")


class OpenAIAdapter:
    """Calls one provider. Its client, with the pool of connections, lives until ``aclose``."""

    def __init__(
        self, config: OpenAIProviderConfig | AzureProviderConfig, api_key: str | None, max_response_bytes: int
    ) -> None:
        self.name = config.name
        self._config = config
        self._max_response_bytes = max_response_bytes
        self._base_url = config.endpoint if isinstance(config, AzureProviderConfig) else config.base_url
        self._failures = ProviderFailures(config.name, self._base_url, config.api_key_env, api_key)
        self._client = make_client(config, self._base_url, api_key)
        self._random = random.Random()  # noqa: S311 - jitter

    def with_key(self, api_key: str) -> OpenAIAdapter:
        """The same provider by another key, on the same connections; they are closed with this one."""
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
        """Runs one generation of ``model``, which the provider calls ``upstream``. Raises as ``ModelGateway.generate``."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        names = tool_names(request)
        body = request_body(
            request,
            upstream or model,
            names,
            self._config.max_tokens_field,
            self._config.stream_usage,
            max_output_tokens,
        )
        call = _Call(body, model, names, on_text, request.request_id)
        given_s = request.deadline - time.time()
        deadline = started + given_s
        try:
            async with asyncio.timeout_at(deadline) as scope:
                assembly = await self._attempts(call, deadline)
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineExceeded(
                f"The model {model!r} did not finish within the {max(0.0, given_s):.0f} s it was given."
            ) from None
        first = call.first_text_at
        return Generation(
            model_id=model,
            finish_reason=assembly.finish_reason(),
            text=assembly.text,
            tool_calls=assembly.tool_calls(),
            usage=assembly.usage(),
            first_delta_ms=None if first is None else round((first - started) * 1000),
            duration_ms=round((loop.time() - started) * 1000),
        )

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        """The names at the provider's ``/models``. Raises UpstreamFailed, InvalidInput (no such address), DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.get("/models", cast_to=httpx2.Response)
            return tuple(entry.id for entry in msgspec.json.decode(response.content, type=ModelList).data)
        except TimeoutError:
            raise DeadlineExceeded(f"The model provider {self.name!r} did not answer within {timeout_s:g} s.") from None
        except UNREADABLE:
            raise self._failures.not_a_stream() from None
        except PROVIDER_ERRORS as error:
            raise self._failures.of(error) from error

    async def aclose(self) -> None:
        await self._client.close()

    async def _attempts(self, call: _Call, deadline: float) -> Assembly:
        retries = 0
        while True:
            try:
                return await self._attempt(call)
            except ParleyError as failure:
                wait_s = None if call.first_text_at is not None else self._retry_wait_s(failure, retries)
                if wait_s is None or asyncio.get_running_loop().time() + wait_s >= deadline:
                    raise
                retries += 1
                log.info(
                    "model call repeated", provider=self.name, model=call.model, code=failure.code,
                    retry=retries, wait_s=round(wait_s, 3), request_id=call.request_id,
                )  # fmt: skip
                await asyncio.sleep(wait_s)

    def _retry_wait_s(self, failure: ParleyError, retries: int) -> float | None:
        """How long to wait before the next attempt; None where there is to be none."""
        if retries >= self._config.max_retries or not failure.retryable:
            return None
        if not isinstance(failure, UpstreamFailed | QuotaExceeded):
            return None
        if failure.retry_after_s is not None:
            return failure.retry_after_s if failure.retry_after_s <= _MAX_RETRY_WAIT_S else None
        return _FIRST_RETRY_S * 2.0**retries * self._random.uniform(0.5, 1.0)

    async def _attempt(self, call: _Call) -> Assembly:
        assembly = Assembly(call.names, self._failures, self._max_response_bytes)
        try:
            response = await self._post(call)
        except PROVIDER_ERRORS as error:
            raise self._failures.of(error, call.model) from error
        except UnicodeEncodeError as error:
            raise InvalidInput("The prompt holds half a character (a lone surrogate), which cannot be sent.") from error
        except ValueError as error:  # the SDK will not make a URL of such a deployment's name
            raise InvalidInput(f"The model's name {call.model!r} cannot be used at this provider.") from error
        try:
            await self._read(response, assembly, call)
        except PROVIDER_ERRORS as error:
            if not assembly.finished:  # else only the count of tokens is lost
                raise self._failures.of(error, call.model) from error
        except EventTooLarge:
            raise self._failures.too_large(f"{self._max_response_bytes} bytes in one piece") from None
        finally:
            await response.aclose()
        call.hand_on(assembly.end())
        if assembly.failure is not None:
            raise assembly.failure
        return assembly

    async def _post(self, call: _Call) -> httpx2.Response:
        response = await self._client.post(
            "/chat/completions",
            body=call.body,
            cast_to=httpx2.Response,
            stream=True,
            options={"headers": call.headers()},
        )
        if not isinstance(response, httpx2.Response):  # pragma: no cover - cast_to says so
            raise TypeError("the SDK gave no raw response")
        return response

    async def _read(self, response: httpx2.Response, assembly: Assembly, call: _Call) -> None:
        """Reads until the end of the body, or of the time allowed for what comes after the model's last word."""
        loop = asyncio.get_running_loop()
        decoder = SSEDecoder(self._max_response_bytes)
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        reads = response.aiter_bytes() if encoded else response.aiter_raw()
        finished = done = False
        try:
            async with asyncio.timeout(None) as patience:
                read = await _first_bytes(reads)
                if read[:1] == b"{":
                    call.hand_on(assembly.add_completion(await self._rest(read, reads)))
                    return
                if read[:1] == b"<":
                    raise self._failures.not_a_stream()
                while read:
                    if not done and (events := decoder.feed(read)):
                        call.hand_on(assembly.add(events))
                        if assembly.failure is not None:
                            return
                        if assembly.done:
                            done = True
                            patience.reschedule(loop.time() + _CLOSE_WAIT_S)
                        elif assembly.finished and not finished:
                            finished = True
                            patience.reschedule(loop.time() + _USAGE_WAIT_S)
                    read = await anext(reads, b"")
                if not done:
                    call.hand_on(assembly.add(decoder.flush()))
        except TimeoutError:
            if not patience.expired():
                raise

    async def _rest(self, first: bytes, reads: AsyncIterator[bytes]) -> bytes:
        body = bytearray(first)
        async for read in reads:
            body += read
            if len(body) > 2 * self._max_response_bytes + ERROR_BODY_BYTES:
                raise self._failures.too_large(f"{self._max_response_bytes} bytes")
        return bytes(body)


class _Call:
    """What the attempts of one call share."""

    def __init__(
        self, body: dict[str, object], model: str, names: ToolNames, on_text: TextSink, request_id: str
    ) -> None:
        self.body = body
        self.model = model
        self.names = names
        self.request_id = request_id
        self.first_text_at: float | None = None
        self._on_text = on_text

    def hand_on(self, pieces: list[str]) -> None:
        if not pieces:
            return
        if self.first_text_at is None:
            self.first_text_at = asyncio.get_running_loop().time()
        self._on_text(pieces)

    def headers(self) -> dict[str, str]:
        usable = self.request_id.isascii() and self.request_id.isprintable() and 0 < len(self.request_id) <= 200
        return {"x-client-request-id": self.request_id} if usable else {}


async def _first_bytes(reads: AsyncIterator[bytes]) -> bytes:
    """The first read that is not only white space: its first byte tells events, JSON and a web page apart."""
    async for read in reads:
        if read := read.lstrip():
            return read
    return b""
