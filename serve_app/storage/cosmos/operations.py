"""What is sent to the database and what it answers: operations of a write, and refusals."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from serve_app.storage.cosmos.documents import Json


class Refused(Exception):
    """The database's answer to a write that does not fit: 404, 409 or 412, and of which of its operations.

    ``perhaps_written``: an attempt before this one may have been committed, so the answer may be to our own write.
    """

    def __init__(self, status: int, index: int, *, perhaps_written: bool) -> None:
        super().__init__(status, index)
        self.status = status
        self.index = index
        self.perhaps_written = perhaps_written


class PlaceLost(Exception):
    """A place in a change feed that cannot be gone on from: it has to be read from the beginning."""


class Operation(Struct, frozen=True):
    """One operation of a write. ``etag``: only over this version. ``condition``: a patch's ``FROM c WHERE …``."""

    kind: Literal["create", "replace", "upsert", "patch", "delete"]
    id: str
    body: Json | list[Json] | None = None
    etag: str | None = None
    condition: str | None = None

    def expiring(self, seconds: int) -> Operation:
        """The same, of a document that expires so long after it was written last, unless it says when itself."""
        if not isinstance(self.body, dict) or self.body.get("ttl") is not None:
            return self
        return replace(self, body={**self.body, "ttl": seconds})

    def sent(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """As the SDK takes it, which takes the options apart: made anew for each attempt."""
        options = {}
        if self.etag is not None:
            options["if_match_etag"] = self.etag
        if self.condition is not None:
            options["filter_predicate"] = self.condition
        match self.kind:
            case "create" | "upsert":
                return self.kind, (self.body,), options
            case "delete":
                return self.kind, (self.id,), options
        return self.kind, (self.id, self.body), options
