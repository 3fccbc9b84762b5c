"""Requests about documents: which operation each is, and the answer to one of a single document or of a batch."""

from __future__ import annotations

from typing import Any

from tests.simulators.cosmos import batch, searches
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.containers import Container, Names
from tests.simulators.cosmos.documents import LARGEST_BYTES, Outcome, Transaction
from tests.simulators.cosmos.faults import Intent
from tests.simulators.cosmos.json_values import encode
from tests.simulators.cosmos.operations import KINDS, Operation
from tests.simulators.cosmos.partitions import LogicalPartition
from tests.simulators.cosmos.refusals import Refusal, not_modelled, too_large
from tests.simulators.cosmos.requests import Call, Reply
from tests.simulators.cosmos.routing import check_container, headers_of, partition_of


class DataPlane:
    def __init__(self, clock: Clock, names: Names, *, strict: bool, split_after: int | None) -> None:
        self._clock = clock
        self._names = names
        self._batches = 0
        self._split_after = split_after
        self.strict = strict

    def intent(self, container: Container, call: Call) -> Intent:
        """What the request is about to do. Raises a 400 for what is no operation."""
        name = _operation(call)
        key = encode(call.partition_key).decode() if call.partition_key is not None else None
        if name == "batch":
            targets = [batch.target(one) for one in batch.check(call.body)]
            about = [(_stored_kind(container, call, each[1]) or each[2], each[1]) for each in targets]
            return Intent(name, container.id, about, [each[0] for each in targets], key)
        if name in ("create", "upsert"):
            return Intent(name, container.id, [(_said(call.body, "kind"), _said(call.body, "id") or "")], partition=key)
        if len(call.segments) == 6:
            document_id = call.segments[5]
            kind = _stored_kind(container, call, document_id)
            if kind is None and name == "replace":
                kind = _said(call.body, "kind")
            return Intent(name, container.id, [(kind, document_id)], partition=key)
        return Intent(name, container.id, partition=key)

    def answer(self, container: Container, call: Call, intent: Intent) -> Reply:
        check_container(container, call)
        match intent.operation:
            case "batch":
                return self._batch(container, call, intent)
            case "query":
                return searches.query(container, call, self._clock, strict=self.strict)
            case "query_plan":
                return searches.query_plan(container, call)
            case "change_feed":
                return searches.feed(container, call, self._clock)
        return self._one(container, call, intent)

    def _one(self, container: Container, call: Call, intent: Intent) -> Reply:
        partition = partition_of(container, call)
        ((kind, document_id),) = intent.documents
        name = intent.operation
        transaction = Transaction(container, partition, self._names, self._clock.now())
        try:
            outcome = _run(transaction, name, document_id, call)
            transaction.commit()
        except Refusal as refusal:
            refusal.headers |= headers_of(container, partition.range)
            raise
        headers = headers_of(container, partition.range)
        self._grow(container, partition)
        body = None
        if outcome.document is not None:
            headers["etag"] = outcome.document.etag
            if outcome.status != 304 and (name == "read" or not call.minimal):
                body = outcome.document.data
        operation = Operation(
            KINDS[name], name, outcome.status, outcome.charge, container.id, partition.key, document_id, kind
        )
        return Reply(outcome.status, body, headers, outcome.charge, [operation])

    def _batch(self, container: Container, call: Call, intent: Intent) -> Reply:
        if not call.says("x-ms-cosmos-batch-atomic") or call.says("x-ms-cosmos-batch-continue-on-error"):
            raise not_modelled("a batch that is not atomic")
        if len(call.data) > LARGEST_BYTES:
            raise too_large()
        call.etags()
        partition = partition_of(container, call)
        transaction = Transaction(container, partition, self._names, self._clock.now())
        results = batch.run(transaction, batch.check(call.body))
        self._batches += 1
        operations = [
            Operation(
                KINDS[one.kind],
                one.kind,
                one.status,
                one.charge,
                container.id,
                partition.key,
                document_id,
                kind,
                batch=self._batches,
            )
            for one, (kind, document_id) in zip(results, intent.documents, strict=True)
        ]
        headers = headers_of(container, partition.range)
        failed = any(one.status >= 400 for one in results)
        if not failed:
            self._grow(container, partition)
        body = encode(batch.answer(results, minimal=call.minimal))
        charge = round(sum(one.charge for one in results), 2)
        return Reply(207 if failed else 200, body, headers, charge, operations)

    def _grow(self, container: Container, partition: LogicalPartition) -> None:
        if self._split_after is not None and container.writes >= self._split_after:
            container.writes = 0
            container.ranges.split(partition.range.id)


def _operation(call: Call) -> str:
    if len(call.segments) == 6:
        known = {"GET": "read", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
    elif call.says("x-ms-cosmos-is-batch-request"):
        known = {"POST": "batch"}
    elif call.says("x-ms-cosmos-is-query-plan-request"):
        known = {"POST": "query_plan"}
    elif call.says("x-ms-documentdb-isquery"):
        known = {"POST": "query"}
    else:
        known = {"POST": "upsert" if call.says("x-ms-documentdb-is-upsert") else "create", "GET": "change_feed"}
    if call.method not in known or len(call.segments) not in (5, 6):
        raise not_modelled(f"{call.method} on /{'/'.join(call.segments)}")
    return known[call.method]


def _run(transaction: Transaction, name: str, document_id: str, call: Call) -> Outcome:
    if name == "read":
        return transaction.read(document_id, **call.etags("if_none_match"))
    if name == "create":
        call.etags()
        return transaction.create(call.body)
    match = call.etags("if_match")
    if name == "upsert":
        return transaction.upsert(call.body, **match)
    if name == "replace":
        return transaction.replace(document_id, call.body, **match)
    if name == "patch":
        return transaction.patch(document_id, call.body, **match)
    return transaction.delete(document_id, **match)


def _stored_kind(container: Container, call: Call, document_id: str) -> str | None:
    """The `kind` of a document that is stored."""
    key = call.partition_key
    partition = container.ranges.partitions.get(encode(key).decode()) if key is not None else None
    found = partition.documents.get(document_id) if partition is not None else None
    return _said(found.body, "kind") if found is not None else None


def _said(body: Any, name: str) -> str | None:
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, str) else None
