"""Writes to one partition that hold together, and where the bodies of what they write are going to lie."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.documents import Body, Document, Elsewhere, Json, Side
from serve_app.storage.cosmos.layout import Partition, conversation_of, quoted
from serve_app.storage.cosmos.operations import Operation

REWRITTEN_BYTES = 8 * 1024
"""Largest body inside a document that is written again and again; a larger one lies beside it."""
INLINE_BYTES = 256 * 1024
"""Largest body in the database; a larger one is a blob."""
BATCH_BYTES = 640 * 1024
"""Bodies of one batch together; what is beyond becomes blobs, too. A batch may have 2 MB, and a body that is all quotes doubles
when it is quoted."""
PASSING_BODIES = "passing/"
"""What the blobs' names of conversations that pass begin with: documents expire by themselves, and blobs do not."""


class Batch:
    """Writes to one partition that hold together. Conditions come first: a refusal names the first that does not fit."""

    def __init__(self, partition: Partition, *, home: int) -> None:
        self.partition = partition
        self.home = home
        self.write_id = uuid.uuid4().hex
        self.blobs: dict[str, bytes] = {}
        self.documents: list[Document] = []
        self.forgotten: list[str] = []
        self._guarded: list[Operation] = []
        self._others: list[Operation] = []
        self._bytes = 0

    @property
    def operations(self) -> list[Operation]:
        return [*self._guarded, *self._others]

    def create(self, document: Document) -> None:
        self._put("create", document, self._others)

    def upsert(self, document: Document) -> None:
        self._put("upsert", document, self._others)

    def replace(self, document: Document) -> None:
        """Over the version that ``document.etag`` names."""
        self._put("replace", document, self._guarded, document.etag)

    def patch(self, document_id: str, values: Mapping[str, Any], condition: str | None = None) -> None:
        """Sets fields, whatever else the document holds by now."""
        sets: list[Json] = [{"op": "set", "path": f"/{name}", "value": value} for name, value in values.items()]
        operation = Operation("patch", document_id, sets, condition=condition)
        (self._others if condition is None else self._guarded).append(operation)
        self.forgotten.append(document_id)

    def delete(self, document_id: str) -> None:
        self._others.append(Operation("delete", document_id))
        self.forgotten.append(document_id)

    def body(self, json: str, name: str, *, rewritten: bool = False) -> Body:
        """``json`` itself, or where it is going to lie. ``rewritten``: its document is written again and again."""
        size = len(json.encode())
        if size <= REWRITTEN_BYTES:
            self._bytes += size
            return json
        fingerprint = documents.fingerprint(json)
        if size > INLINE_BYTES or self._bytes + size > BATCH_BYTES:
            path = f"{blob_prefix(self.partition, self.home)}{quoted(name)}-{fingerprint}"
            self.blobs[path] = json.encode()
            return Elsewhere(blob=path)
        self._bytes += size
        if not rewritten:
            return json
        side = f"x-{name}-{fingerprint}"
        tenant_id, conversation_id = self.partition
        self.upsert(Side(id=side, tenant_id=tenant_id, conversation_id=conversation_id, body=json))
        return Elsewhere(doc=side)

    def _put(self, kind: Any, document: Document, to: list[Operation], etag: str | None = None) -> None:
        document = msgspec.structs.replace(document, write_id=self.write_id)
        self.documents.append(document)
        to.append(Operation(kind, document.id, documents.written(document), etag=etag))


def blob_prefix(partition: Partition, home: int) -> str:
    """Where the blobs of a conversation lie. ``home``, its order, keeps a successor's apart."""
    key = conversation_of(partition)
    root = PASSING_BODIES if key.passing else "bodies/"
    return f"{root}{quoted(key.tenant_id)}/{quoted(key.user_id)}/{key.conversation_id}/{home}/"
