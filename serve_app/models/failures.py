"""What can go wrong at a provider, in our own errors and in sentences that say what to do.

    stage of the call       seen as                                 becomes
    connecting              refused, DNS, TLS, timeout              Unreachable, retryable
    status 400 413 422      the provider's sentence                 InvalidInput
    status 401 403          a credential (Google: 400 as well)      UpstreamFailed, not retryable
    status 404              an unknown model, or a wrong base_url   InvalidInput
    status 402 429          a quota or a rate                       QuotaExceeded, with retry_after_s where given
    other statuses          the provider's fault                    UpstreamFailed, retryable
    streaming               drop, stall, nonsense, {"error": …}     UpstreamFailed, retryable
    end of the stream       no finish reason                        UpstreamFailed, retryable
                            a reason that leaves no answer          Unfinished, retryable

Sentences of a provider are repeated only where they help the caller, shortened, and with anything like a key removed.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import httpx2

from serve_app.errors import InvalidInput, ParleyError, QuotaExceeded, Unfinished, Unreachable, UpstreamFailed

_CONNECTING: tuple[type[BaseException], ...] = (
    socket.gaierror,
    ssl.SSLError,
    ssl.CertificateError,
    ConnectionRefusedError,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
)
"""Seen only where there is no connection yet."""
_MAX_SENTENCE_CHARS = 300
_MAX_RETRY_AFTER_S = 86_400.0
_SECRETS = re.compile(
    r"\b(?i:sk|pk|rk|key|api[-_]?key)[-_][^\s,;'\"]{6,}"
    r"|\b(?i:bearer)\s+\S+"
    r"|\b(?=[\w+/-]*[0-9])(?=[\w+/-]*[A-Z])(?=[\w+/-]*[a-z])[\w+/-]{32,}={0,2}"
)
_WORDS = {
    "rate_limit_exceeded": QuotaExceeded,
    "rate_limit_error": QuotaExceeded,
    "tokens": QuotaExceeded,
    "requests": QuotaExceeded,
    "resource_exhausted": QuotaExceeded,  # Google's
}
_OVERLOADED = 529  # Anthropic's
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


class ProviderFailures:
    """Makes the errors of one provider. ``credential`` names the variable to check, ``secret`` must never be repeated."""

    def __init__(self, provider: str, base_url: str, credential: str | None, secret: str | None = None) -> None:
        self._provider = provider
        self._base_url = base_url
        self._credential = credential
        self._secret = secret

    def of(self, error: BaseException) -> UpstreamFailed:
        """The error for whatever broke the connection, or (Unreachable) kept it from being made."""
        kind = Unreachable if _any(list(_chain(error)), *_CONNECTING) else UpstreamFailed
        return kind(f"{self._name()} {self._connection(error)}")

    def truncated(self) -> UpstreamFailed:
        return UpstreamFailed(f"{self._name()} ended its answer without a finish reason, so part of it is missing.")

    def malformed(self) -> UpstreamFailed:
        return UpstreamFailed(f"{self._name()} sent a piece of its answer that cannot be read.")

    def not_a_stream(self) -> UpstreamFailed:
        return UpstreamFailed(
            f"{self._name()} answered with neither events nor JSON; check its base_url ({self._base_url}).", False
        )

    def too_large(self, bound: str) -> UpstreamFailed:
        return UpstreamFailed(f"{self._name()} sent an answer of more than {bound}.", False)

    def in_stream(self, error: Any) -> ParleyError:
        """An error the provider reported in place of a chunk, as its object or its sentence."""
        words = _words(error)
        kind = next((_WORDS[word] for word in words if word in _WORDS), UpstreamFailed)
        sentence = self._said(error)
        return kind(f"{self._name()} reported a failure in the middle of its answer{sentence}")

    def blocked(self, reason: str) -> InvalidInput:
        """The provider does not let its model see the prompt."""
        return InvalidInput(f"{self._name()} refused the prompt ({self._clean(reason)}).")

    def unusable(self, reason: str) -> Unfinished:
        """The model ended for a reason that leaves no answer."""
        return Unfinished(f"{self._name()} ended its answer early ({self._clean(reason)}), so part of it is missing.")

    def of_status(
        self, status: int, headers: Mapping[str, str], body: Any = None, model: str | None = None
    ) -> ParleyError:
        """The error for a status that is not a success. ``body`` is what came with it, decoded where it was JSON."""
        said = self._said(body)
        if status in (401, 403) or (status == 400 and "API_KEY_INVALID" in _details(body, "reason")):
            what = f"check {self._credential}" if self._credential else "it wants a key: name one with api_key_env"
            return UpstreamFailed(f"{self._name()} refused our credential (status {status}); {what}.", False)
        if status == 404:
            subject = f"the model {model!r}" if model else f"the address {self._base_url}"
            hint = said or (
                f"; if the model exists, check the provider's base_url ({self._base_url})." if model else "."
            )
            return InvalidInput(f"{self._name()} does not know {subject}{hint}")
        if status in (400, 413, 422):
            return InvalidInput(f"{self._name()} refused the request{said or f' (status {status}).'}")
        retryable = _should_retry(headers)
        if status in (402, 429):
            spent = status == 402 or "insufficient_quota" in _words(body)
            if spent:
                return QuotaExceeded(f"The quota at {self._name(False)} is used up; check its plan and billing.", False)
            wait_s = retry_after_s(headers)
            return QuotaExceeded(
                f"{self._name()} limits our rate of requests; try again later.",
                retryable,
                _retry_delay_s(body) if wait_s is None else wait_s,
            )
        if 300 <= status < 400:
            return UpstreamFailed(f"{self._name()} redirects elsewhere; set its base_url to the final address.", False)
        what = "is overloaded" if status == _OVERLOADED else "failed"
        return UpstreamFailed(
            f"{self._name()} {what} (status {status}).", retryable, retry_after_s(headers) if status >= 500 else None
        )

    def _connection(self, error: BaseException) -> str:
        causes = list(_chain(error))
        where = self._base_url
        if _any(causes, socket.gaierror):
            return f"cannot be reached: the host name in {where} does not resolve."
        if _any(causes, ssl.SSLError, ssl.CertificateError):
            return f"cannot be reached: the TLS connection to {where} failed; check the address and its certificate."
        if _any(causes, ConnectionRefusedError):
            return f"cannot be reached: {where} refuses connections; check that it runs and the address is right."
        if _any(causes, TimeoutError):
            return "did not answer in time."
        if _any(causes, aiohttp.ClientConnectorError):
            return f"cannot be reached at {where}."
        return "broke the connection before its answer was complete."

    def _said(self, body: Any) -> str:
        sentence = self._clean(_sentence(body))
        return f": {sentence}" if sentence else ""

    def _clean(self, sentence: str) -> str:
        sentence = " ".join(sentence.split())
        if self._secret:
            sentence = sentence.replace(self._secret, "[removed]")
        sentence = _SECRETS.sub("[removed]", sentence)
        if len(sentence) > _MAX_SENTENCE_CHARS:
            sentence = sentence[: _MAX_SENTENCE_CHARS - 1].rstrip() + "…"
        return "".join(char for char in sentence if char.isprintable())

    def _name(self, start: bool = True) -> str:
        return f"{'The' if start else 'the'} model provider {self._provider!r}"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When the provider wants to be asked again, in seconds from now: ``retry-after-ms``, else ``retry-after`` in either form."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / per_second
        except ValueError:
            if name == "retry-after-ms":
                continue
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if 0 <= seconds <= _MAX_RETRY_AFTER_S:  # rules out NaN as well
            return seconds
    return None


def _retry_delay_s(body: Any) -> float | None:
    """The same as Google writes it, among the details of an error."""
    for delay in _details(body, "retryDelay"):
        match = _SECONDS.fullmatch(delay)
        if match and float(match[1]) <= _MAX_RETRY_AFTER_S:
            return float(match[1])
    return None


def _should_retry(headers: Mapping[str, str]) -> bool:
    return headers.get("x-should-retry") != "false"


def _error_object(body: Any) -> Any:
    """The error itself: providers wrap it in ``error``, send it bare, or as a string."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body.get("error", body) if isinstance(body, Mapping) else body


def _sentence(body: Any) -> str:
    error = _error_object(body)
    if isinstance(error, Mapping):
        message = error.get("message") or error.get("detail")
        return message if isinstance(message, str) else ""
    return error if isinstance(error, str) and not error.lstrip().startswith(("<", "{")) else ""


def _words(body: Any) -> tuple[str, ...]:
    error = _error_object(body)
    if not isinstance(error, Mapping):
        return ()
    return tuple(str(error.get(key)).lower() for key in ("code", "type", "status") if error.get(key) is not None)


def _details(body: Any, key: str) -> tuple[str, ...]:
    """The values of ``key`` among the details of an error."""
    error = _error_object(body)
    listed = error.get("details") if isinstance(error, Mapping) else None
    if not isinstance(listed, list):
        return ()
    return tuple(
        value for detail in listed if isinstance(detail, Mapping) and isinstance(value := detail.get(key), str)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what caused it, bounded."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _any(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)
