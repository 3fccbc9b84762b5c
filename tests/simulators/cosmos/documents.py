"""Writes and point reads of one logical partition, all of them or none: a single operation is a batch of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.simulators.cosmos import charges, patch
from tests.simulators.cosmos.containers import Container, Names, check_id, check_ttl, rid_text
from tests.simulators.cosmos.json_values import UNDEFINED, encode
from tests.simulators.cosmos.partitions import Document, LogicalPartition
from tests.simulators.cosmos.refusals import (
    PARTITION_KEY_MISMATCH,
    bad_request,
    conflict,
    not_found,
    not_modelled,
    precondition_failed,
    too_large,
)
from tests.simulators.cosmos.sql_evaluator import compile_condition

LARGEST_BYTES = 2 * 1024 * 1024


@dataclass(slots=True)
class Outcome:
    """What an operation did. `document` is the one read or written, None after a delete."""

    status: int
    charge: float
    document: Document | None = None


class Transaction:
    """Operations see each other's writes; nothing of them is in the container before `commit`."""

    def __init__(self, container: Container, partition: LogicalPartition, names: Names, now: float) -> None:
        self._container = container
        self._partition = partition
        self._names = names
        self._now = now
        self._writes: dict[str, Document | None] = {}

    def read(self, document_id: str, *, if_none_match: str | None = None) -> Outcome:
        """304 without a document where the etag still holds."""
        found = self._get(document_id)
        if if_none_match is not None and if_none_match in (found.etag, "*"):
            return Outcome(304, charges.READ_AGAIN, found)
        return Outcome(200, charges.read(len(found.data)), found)

    def create(self, body: Any) -> Outcome:
        document_id = self._check(body)
        if self._find(document_id) is not None:
            raise conflict()
        document = self._put(body, None)
        return Outcome(201, charges.write(len(document.data), document.terms), document)

    def upsert(self, body: Any, *, if_match: str | None = None) -> Outcome:
        document_id = self._check(body)
        found = self._find(document_id)
        if found is None:
            if if_match is not None:
                raise not_modelled("an upsert with If-Match of a document that does not exist")
            return self.create(body)
        return self._replaced(found, body, if_match)

    def replace(self, document_id: str, body: Any, *, if_match: str | None = None) -> Outcome:
        if self._check(body) != document_id:
            raise not_modelled("a replace that changes the id")
        return self._replaced(self._get(document_id), body, if_match)

    def patch(self, document_id: str, given: Any, *, if_match: str | None = None) -> Outcome:
        if not isinstance(given, dict) or set(given) - {"operations", "condition"}:
            raise bad_request("A patch request has operations and perhaps a condition.")
        found = self._get(document_id)
        _check_match(found, if_match)
        condition = given.get("condition")
        if condition is not None and compile_condition(condition)(found.body) is not True:
            raise precondition_failed()
        body = patch.apply(found.body, given.get("operations"), fixed=self._container.key_paths)
        return self._replaced(found, body, None)

    def delete(self, document_id: str, *, if_match: str | None = None) -> Outcome:
        found = self._get(document_id)
        _check_match(found, if_match)
        self._writes[document_id] = None
        return Outcome(204, charges.delete(len(found.data), found.terms))

    def commit(self) -> None:
        """Put every write in the container, under one sequence number."""
        if not self._writes:
            return
        partition, held = self._partition, self._partition.range
        held.lsn += 1
        for document_id, document in self._writes.items():
            key = (partition.key, document_id)
            held.changed.pop(key, None)
            if document is None:
                partition.documents.pop(document_id, None)
            else:
                document.lsn = held.lsn
                partition.documents[document_id] = held.changed[key] = document
        self._container.writes += len(self._writes)

    def _find(self, document_id: str) -> Document | None:
        if document_id in self._writes:
            return self._writes[document_id]
        return self._partition.get(document_id, self._now)

    def _get(self, document_id: str) -> Document:
        found = self._find(document_id)
        if found is None:
            raise not_found()
        return found

    def _replaced(self, found: Document, body: dict[str, Any], if_match: str | None) -> Outcome:
        _check_match(found, if_match)
        document = self._put(body, found.number)
        return Outcome(200, charges.write(len(document.data), document.terms, replaces=True), document)

    def _check(self, body: Any) -> str:
        if not isinstance(body, dict):
            raise bad_request("The input content is invalid because a document is a JSON object.")
        document_id = check_id(body.get("id"))
        key = self._container.key_of(body)
        given = encode([{} if value is UNDEFINED else value for value in key]).decode()
        if given != self._partition.key:
            raise bad_request(
                "PartitionKey extracted from document doesn't match the one specified in the header. "
                "Learn more: https://aka.ms/CosmosDB/sql/errors/wrong-pk-value",
                substatus=PARTITION_KEY_MISMATCH,
            )
        return document_id

    def _put(self, given: dict[str, Any], number: int | None) -> Document:
        if given.get("ttl") is not None:
            check_ttl(given["ttl"])
        names, container = self._names, self._container
        rid = names.rid(container.rid) if number is None else container.rid + number.to_bytes(4, "big")
        etag, ts = names.etag(), names.ts()
        body = {
            name: value
            for name, value in given.items()
            if name not in ("_rid", "_self", "_etag", "_attachments", "_ts")
        }
        body["_rid"] = rid_text(rid)
        body["_self"] = f"{container.link}docs/{body['_rid']}/"
        body["_etag"] = etag
        body["_attachments"] = "attachments/"
        body["_ts"] = ts
        data = encode(body)
        if len(data) > LARGEST_BYTES:
            raise too_large()
        document = Document(
            body,
            data,
            etag,
            ts,
            int.from_bytes(rid[-4:], "big"),
            container.policy.terms(body),
            container.expiry(body, ts),
        )
        self._writes[document.id] = document
        return document


def _check_match(found: Document, if_match: str | None) -> None:
    if if_match is not None and if_match not in (found.etag, "*"):
        raise precondition_failed()
