"""Answers that are not success, in the form the service gives them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

CODES = {
    304: "NotModified",
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "Conflict",
    410: "Gone",
    412: "PreconditionFailed",
    413: "RequestEntityTooLarge",
    424: "FailedDependency",
    429: "TooManyRequests",
    449: "RetryWith",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}

PARTITION_KEY_MISMATCH = 1001
RANGE_GONE = 1002
SESSION_NOT_AVAILABLE = 1002
OWNER_NOT_FOUND = 1003
NOT_SERVED_BY_GATEWAY = 1004
CONTAINER_RID_MISMATCH = 1024


class Refusal(Exception):
    """The operation is answered with `status`; nothing was written."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        substatus: int = 0,
        headers: Mapping[str, str] | None = None,
        charge: float = 0.0,
        code: str | None = None,
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.substatus = substatus
        self.headers = dict(headers or {})
        self.charge = charge
        self.code = code or CODES.get(status, "BadRequest")

    def body(self, activity_id: str) -> dict[str, str]:
        text = f"{self.message}\r\nActivityId: {activity_id}, Microsoft.Azure.Documents.Common/2.14.0"
        return {"code": self.code, "message": text}


def new_activity_id() -> str:
    return str(uuid.uuid4())


def bad_request(message: str, *, substatus: int = 0) -> Refusal:
    return Refusal(400, message, substatus=substatus)


def not_modelled(what: str) -> Refusal:
    """Not Azure's refusal but ours: the simulator does not know what the service would do."""
    return Refusal(400, f"The simulator does not model {what}; it refuses what it does not know.", code="NotModelled")


def not_found(*, substatus: int = 0) -> Refusal:
    if substatus == OWNER_NOT_FOUND:
        return Refusal(404, "Owner resource does not exist", substatus=substatus, charge=1.0)
    return Refusal(
        404,
        "Entity with the specified id does not exist in the system. "
        "More info: https://aka.ms/cosmosdb-tsg-not-found, ResourceNotFound",
        charge=1.0,
    )


def conflict() -> Refusal:
    return Refusal(409, "Entity with the specified id already exists in the system.", charge=1.24)


def precondition_failed() -> Refusal:
    return Refusal(
        412,
        "Operation cannot be performed because one of the specified precondition is not met.",
        charge=1.24,
    )


def too_large() -> Refusal:
    return Refusal(413, "Request size is too large", charge=1.0)


def range_gone(range_id: str) -> Refusal:
    return Refusal(
        410, f"The requested resource is no longer available at the server: range {range_id}", substatus=RANGE_GONE
    )
