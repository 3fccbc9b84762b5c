"""What the SDK raises, as ours: what passes by itself is tried again, what does not is said in one sentence with its cure."""

from __future__ import annotations

import time
from collections.abc import Mapping

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from serve_app.errors import Conflict, NotFound, Overloaded, ParleyError, UpstreamFailed
from serve_app.http_date import clock_off_s

PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
CLOCK_TOLERANCE_S = 300.0
"""Azure refuses requests dated 15 minutes off; from here on the clock is named as the likely cause."""

FAILURES = (AzureError, TimeoutError, OSError)
"""Everything a request may raise."""

_REFUSALS = {
    "AuthorizationPermissionMismatch": "this identity lacks the role 'Storage Blob Data Contributor' on the account",
    "InsufficientAccountPermissions": "this identity lacks the role 'Storage Blob Data Contributor' on the account",
    "AuthorizationFailure": "the account's network rules do not let this machine in, or AZURE_STORAGE_KEY is wrong",
    "KeyBasedAuthenticationNotPermitted": "the account accepts no keys; unset AZURE_STORAGE_KEY to use Entra ID",
    "AccountIsDisabled": "the account is disabled",
}


def passes(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, ClientAuthenticationError):
        return False
    if isinstance(error, (ServiceRequestError, ServiceResponseError, TimeoutError, OSError)):
        return True
    return isinstance(error, HttpResponseError) and (error.status_code in PASSING_STATUSES or error.status_code is None)


def asked_wait_s(error: BaseException) -> float:
    """How long the service asks to be left alone; 0 where it says nothing."""
    for header, unit_s in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = _header(error, header)
        if value.isdigit():
            return int(value[:9]) * unit_s
    return 0.0


def failure_of(error: BaseException, container: str) -> ParleyError:
    """NotFound, Conflict for a condition that does not hold, UpstreamFailed for what somebody must put right, else Overloaded."""
    if isinstance(error, ClientAuthenticationError) and error.response is None:
        return UpstreamFailed(
            "Blob Storage: Entra ID gave no token; sign in, assign a managed identity, or set AZURE_STORAGE_KEY.", False
        )
    if not isinstance(error, HttpResponseError) or error.status_code is None:
        return Overloaded("Blob Storage cannot be reached; try again in a moment.")
    code = _code(error)
    match error.status_code:
        case 404 if code == "ContainerNotFound":
            return UpstreamFailed(f"Blob Storage has no container {container!r}; `parley store init` makes it.", False)
        case 404:
            return NotFound("There is no such blob.")
        case 409 | 412:
            return Conflict("The blob is not as it was.")
        case 401 | 403:
            return UpstreamFailed(f"Blob Storage refuses access: {_why_refused(error, code)}.", False)
        case status if status in PASSING_STATUSES:
            return Overloaded("Blob Storage is busy; try again in a moment.", None, asked_wait_s(error) or None)
        case status:
            return UpstreamFailed(f"Blob Storage answered {status}{f' ({code})' if code else ''}.", False)


def _code(error: HttpResponseError) -> str:
    """The service's own name of the failure; a member of an enumeration where the SDK knows it."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _why_refused(error: HttpResponseError, code: str) -> str:
    if code in _REFUSALS:
        return _REFUSALS[code]
    off_s = abs(clock_off_s(_headers(error), time.time()) or 0.0)
    if off_s > CLOCK_TOLERANCE_S:
        return f"this machine's clock is off by {round(off_s / 60)} minutes"
    return "correct AZURE_STORAGE_KEY, or the role of this identity"


def _header(error: BaseException, name: str) -> str:
    """A header of the answer; empty where there was no answer, or none of that name."""
    return _headers(error).get(name, "")


def _headers(error: BaseException) -> Mapping[str, str]:
    response = error.response if isinstance(error, HttpResponseError) else None
    headers: Mapping[str, str] = getattr(response, "headers", None) or {}
    return headers
