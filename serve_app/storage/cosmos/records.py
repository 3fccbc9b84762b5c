"""Configuration records: one document each, found by tenant, kind and id."""

from __future__ import annotations

from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import Json
from serve_app.storage.cosmos.layout import AUTHZ, quoted
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.sessions import rounds
from serve_app.storage.pages import RecordCursor, encode_cursor
from serve_app.storage.rules import no_record, stale_record


class Records:
    """The container of records. A body is a string: it comes back to the byte."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, tenant_id: str, kind: str, record_id: str) -> Record:
        """Raises NotFound."""
        found = await self._connection.read(AUTHZ, (tenant_id, kind), quoted(record_id))
        if found is None:
            raise no_record()
        return _record(found)

    async def save(
        self, tenant_id: str, kind: str, record_id: str, body: bytes, *, if_match: str | None = None
    ) -> Record:
        """Raises Conflict."""
        document_id = quoted(record_id)
        json: Json = {
            "id": document_id,
            "tenantId": tenant_id,
            "kind": kind,
            "recordId": record_id,
            "body": body.decode(),
        }
        operation = Operation("upsert", document_id, json)
        if if_match == "":
            operation = Operation("create", document_id, json)
        elif if_match is not None:
            operation = Operation("replace", document_id, json, etag=f'"{if_match}"')
        try:
            etags = await self._connection.write(AUTHZ, (tenant_id, kind), [operation])
        except Refused as refused:
            if refused.perhaps_written:
                found = await self._connection.read(AUTHZ, (tenant_id, kind), document_id)
                if found is not None and found["body"] == json["body"]:
                    return _record(found)
            raise stale_record() from None
        return Record(tenant_id=tenant_id, kind=kind, record_id=record_id, body=body, etag=documents.bare(etags[0]))

    async def delete(self, tenant_id: str, kind: str, record_id: str) -> None:
        """Raises NotFound."""
        async for _ in rounds():
            try:
                await self._connection.write(AUTHZ, (tenant_id, kind), [Operation("delete", quoted(record_id))])
            except Refused as refused:
                if refused.status == 404 and not refused.perhaps_written:
                    raise no_record() from None
                if refused.status != 404:
                    continue
            return

    async def page(self, tenant_id: str, kind: str, *, after: RecordCursor | None, limit: int) -> Page[Record]:
        where, parameters = "", {}
        if after is not None:
            where, parameters = "c.recordId > @after", {"@after": after.record_id}
        found = await self._connection.query(
            AUTHZ, (tenant_id, kind), where, parameters, order="recordId ASC", limit=limit + 1
        )
        more = encode_cursor(RecordCursor(record_id=str(found[limit - 1]["recordId"]))) if len(found) > limit else None
        return Page(items=tuple(_record(json) for json in found[:limit]), next_cursor=more)


def _record(json: Json) -> Record:
    return Record(
        tenant_id=json["tenantId"],
        kind=json["kind"],
        record_id=json["recordId"],
        body=json["body"].encode(),
        etag=documents.bare(json["_etag"]),
    )
