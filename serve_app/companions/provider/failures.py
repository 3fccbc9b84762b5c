"""Ways a provider goes wrong, as data: what scripts may ask for and what the responder then does on the wire."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

_ERROR_TYPES: Final = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                       429: "rate_limit_error"}  # fmt: skip


class _Failure(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpFailure(_Failure):
    """An error status instead of an answer."""

    kind: Literal["http"] = "http"
    status: int = Field(default=500, ge=400, le=599)
    code: str | None = Field(default=None, max_length=100, description="error.code; chosen from the status when absent")
    message: str = Field(default="The simulated provider was told to fail.", max_length=2000)
    retry_after_ms: int | None = Field(default=None, ge=0, le=600_000, description="header retry-after-ms")


class Disconnect(_Failure):
    """The connection is cut after this many chunks (0: after the headers)."""

    kind: Literal["disconnect"]
    after_chunks: int = Field(default=0, ge=0)


class Truncate(_Failure):
    """The stream ends politely after this many chunks, without `finish_reason` and without `[DONE]`."""

    kind: Literal["truncate"]
    after_chunks: int = Field(default=3, ge=0)


class Stall(_Failure):
    """Nothing comes for `for_s` seconds after this many chunks; then the answer goes on."""

    kind: Literal["stall"]
    after_chunks: int = Field(default=3, ge=0)
    for_s: float = Field(default=600.0, gt=0, le=3600)


class Malformed(_Failure):
    """One chunk after this many is not JSON; then the answer goes on."""

    kind: Literal["malformed"]
    after_chunks: int = Field(default=1, ge=0)


class StreamError(_Failure):
    """A `{"error": …}` event inside the stream after this many chunks, which ends it."""

    kind: Literal["stream_error"]
    after_chunks: int = Field(default=1, ge=0)
    code: str = Field(default="server_error", max_length=100)
    message: str = Field(default="The simulated provider failed while answering.", max_length=2000)


Failure = Annotated[HttpFailure | Disconnect | Truncate | Stall | Malformed | StreamError, Field(discriminator="kind")]


class ProviderError(Exception):
    """A refusal, in the shape OpenAI gives it: status, message, type, param and code."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_ms = retry_after_ms

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body."""
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _ERROR_TYPES.get(self.status, usual)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @classmethod
    def from_failure(cls, failure: HttpFailure) -> ProviderError:
        """The refusal that a script or a load profile asked for."""
        usual = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
        code = failure.code or usual.get(failure.status, "server_error" if failure.status >= 500 else None)
        return cls(failure.status, failure.message, code=code, retry_after_ms=failure.retry_after_ms)
