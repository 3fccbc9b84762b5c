"""Every failure a user can cause or meet, as one hierarchy.

    ParleyError                 code               status  retryable
    ├── InvalidInput            invalid_input      422     no
    ├── Unauthenticated         unauthenticated    401     no
    ├── NotPermitted            not_permitted      403     no
    ├── NotFound                not_found          404     no
    ├── Conflict                conflict           409     no
    │   └── LeaseLost           conflict           409     yes   (another owner runs the turn; never shown to users)
    ├── Gone                    gone               410     no
    ├── TooLarge                too_large          413     no
    ├── QuotaExceeded           quota_exceeded     429     yes
    ├── Overloaded              overloaded         503     yes
    │   └── StageUnavailable    overloaded         503     yes   (a stage's replica died or cannot be reached)
    ├── DeadlineExceeded        deadline_exceeded  504     yes
    ├── UpstreamFailed          upstream_failed    502     yes
    │   ├── Unreachable         upstream_failed    502     yes   (no connection to the provider could be made)
    │   └── Unfinished          upstream_failed    502     yes   (the model ended in good order, but without an answer)
    ├── Internal                internal           500     no
    └── ConfigError             invalid_config     –       no    (start-up only; the command line exits with 2)

Instances cross process boundaries, so every class takes positional arguments only and survives pickling
(``tests/unit/test_errors.py`` round-trips them all).
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "Gone",
    "Internal",
    "InvalidInput",
    "LeaseLost",
    "NotFound",
    "NotPermitted",
    "Overloaded",
    "ParleyError",
    "QuotaExceeded",
    "StageUnavailable",
    "TooLarge",
    "Unauthenticated",
    "Unfinished",
    "Unreachable",
    "UpstreamFailed",
]


class ParleyError(Exception):
    """A failure with a stable ``code``, an HTTP ``status``, a sentence for people and whether trying again can help.

    ``retry_after_s`` is set where the server knows when to come back; ``details`` are field errors or other
    structured facts that are safe to show to the caller.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message, retryable, retry_after_s, details)
        self.message = message
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.details = details

    def __str__(self) -> str:
        return self.message


class InvalidInput(ParleyError):
    code = "invalid_input"
    status = 422
    title = "Invalid input"


class Unauthenticated(ParleyError):
    code = "unauthenticated"
    status = 401
    title = "Not authenticated"


class NotPermitted(ParleyError):
    code = "not_permitted"
    status = 403
    title = "Not permitted"


class NotFound(ParleyError):
    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(ParleyError):
    code = "conflict"
    status = 409
    title = "Conflict"


class LeaseLost(Conflict):
    """The caller's epoch is no longer the turn's: somebody else owns it, or it has ended."""

    default_retryable = True


class Gone(ParleyError):
    code = "gone"
    status = 410
    title = "Gone"


class TooLarge(ParleyError):
    code = "too_large"
    status = 413
    title = "Too large"


class QuotaExceeded(ParleyError):
    code = "quota_exceeded"
    status = 429
    title = "Quota exceeded"
    default_retryable = True


class Overloaded(ParleyError):
    code = "overloaded"
    status = 503
    title = "Overloaded"
    default_retryable = True


class StageUnavailable(Overloaded):
    """A stage's replica died, or none could be reached before the deadline."""


class DeadlineExceeded(ParleyError):
    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"
    default_retryable = True


class UpstreamFailed(ParleyError):
    code = "upstream_failed"
    status = 502
    title = "Upstream failed"
    default_retryable = True


class Unreachable(UpstreamFailed):
    """No connection to the provider could be made: nothing was sent, and it is the same for all of its models."""


class Unfinished(UpstreamFailed):
    """The provider answered, and said that its model ended early: this request's misfortune, and no sign of an outage."""


class Internal(ParleyError):
    pass


class ConfigError(ParleyError):
    """A setting that cannot work: the message names the setting and says what to do."""

    code = "invalid_config"
    title = "Invalid configuration"
