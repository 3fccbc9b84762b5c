"""Requests that read many documents: queries, their plans, and the change feed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.simulators.cosmos import change_feed, charges, queries
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.containers import Container, rid_text
from tests.simulators.cosmos.json_values import encode
from tests.simulators.cosmos.operations import Operation
from tests.simulators.cosmos.partitions import Document, LogicalPartition, PhysicalRange
from tests.simulators.cosmos.refusals import NOT_SERVED_BY_GATEWAY, bad_request, not_modelled
from tests.simulators.cosmos.requests import Call, Reply
from tests.simulators.cosmos.routing import headers_of, partition_of
from tests.simulators.cosmos.sql_syntax import Query


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a request reads: one partition, or all or a part of one range, or (neither given) of all ranges."""

    documents: Callable[[float], Iterator[Document]]
    wanted: Callable[[str], bool]  # by the key of a partition
    name: str  # what a continuation is bound to
    partition: LogicalPartition | None = None
    held: PhysicalRange | None = None

    @property
    def range(self) -> PhysicalRange | None:
        return self.partition.range if self.partition is not None else self.held

    @property
    def key(self) -> str | None:
        return self.partition.key if self.partition is not None else None


def query(container: Container, call: Call, clock: Clock, *, strict: bool) -> Reply:
    """One page. With `strict`, filters that no index serves are refused unless the request allows scans."""
    statement = queries.read_statement(call.body)
    scans = not strict or call.says("x-ms-documentdb-query-enable-scan")
    queries.check_policy(statement.query, container.policy, scans=scans)
    scope = _scope(container, call)
    if scope.range is None:
        _check_gateway(statement.query, call)
    page = queries.run(
        statement,
        scope.documents(clock.now()),
        scope=scope.name,
        size=queries.page_size(call.headers.get("x-ms-max-item-count")),
        continuation=call.headers.get("x-ms-continuation"),
    )
    headers = headers_of(container, scope.range) | {"x-ms-item-count": str(len(page.rows))}
    if page.continuation is not None:
        headers["x-ms-continuation"] = page.continuation
    operation = Operation(
        "query",
        "query",
        200,
        page.charge,
        container.id,
        scope.key,
        cross_partition=scope.partition is None,
        text=statement.text,
    )
    return Reply(200, _feed_body(container, page.rows), headers, page.charge, [operation])


def query_plan(container: Container, call: Call) -> Reply:
    """How to ask every range. The SDK wants it only after a 400/1004."""
    statement = queries.read_statement(call.body)
    body = encode(queries.plan(statement.query))
    operation = Operation("query", "query_plan", 200, 1.0, container.id, cross_partition=True, text=statement.text)
    return Reply(200, body, headers_of(container, None), 1.0, [operation])


def feed(container: Container, call: Call, clock: Clock) -> Reply:
    if call.headers.get("a-im", "").lower() != "incremental feed":
        raise not_modelled("reading a container otherwise than by query or by A-IM: Incremental feed")
    scope = _scope(container, call)
    if scope.range is None:
        raise not_modelled("a change feed without a partition key or a range")
    page = change_feed.read(
        scope.range,
        wanted=scope.wanted,
        since=call.headers.get("if-none-match"),
        start=call.headers.get("if-modified-since"),
        size=queries.page_size(call.headers.get("x-ms-max-item-count")),
        now=clock.now(),
    )
    charge = charges.feed(sum(len(document.data) for document in page.documents))
    status = 200 if page.documents else 304
    rows: list[object] = [document.body | {"_lsn": document.lsn} for document in page.documents]
    headers = headers_of(container, scope.range) | {"etag": page.etag, "x-ms-item-count": str(len(rows))}
    operation = Operation("feed", "change_feed", status, charge, container.id, scope.key)
    return Reply(status, _feed_body(container, rows) if rows else None, headers, charge, [operation])


def _check_gateway(asked: Query, call: Call) -> None:
    if not call.says("x-ms-documentdb-query-enablecrosspartition"):
        raise bad_request(
            "Cross partition query is required but disabled. Please set x-ms-documentdb-query-enablecrosspartition to true, "
            "specify x-ms-documentdb-partitionkey, or revise your query to avoid this exception."
        )
    if asked.needs_every_range:
        raise bad_request(
            "The provided cross partition query can not be directly served by the gateway. This is a first chance (internal) "
            "exception that all newer clients will know how to handle gracefully.",
            substatus=NOT_SERVED_BY_GATEWAY,
        )


def _scope(container: Container, call: Call) -> _Scope:
    """Raises 410/1002 for a range that was split."""
    ranges = container.ranges
    range_id = call.headers.get("x-ms-documentdb-partitionkeyrangeid")
    held = ranges.range(range_id) if range_id is not None else None
    if call.partition_key is not None:
        partition = partition_of(container, call)
        if held is not None and partition.range is not held:
            raise bad_request("The partition key is not in the partition key range that the request names.")
        return _Scope(partition.live, lambda key: key == partition.key, f"{container.link}{partition.key}", partition)
    low, high = call.headers.get("x-ms-start-epk"), call.headers.get("x-ms-end-epk")
    if low is None and high is None:
        low, high = "", "~"  # beyond every hexadecimal digit
    elif low is None or high is None or held is None:
        raise bad_request("x-ms-start-epk and x-ms-end-epk come together, with a partition key range.")
    elif call.headers.get("x-ms-read-key-type") != "EffectivePartitionKeyRange":
        raise not_modelled(f"the read key type {call.headers.get('x-ms-read-key-type')}")

    def wanted(key: str) -> bool:
        return low <= ranges.partitions[key].epk < high

    def documents(now: float) -> Iterator[Document]:
        for partition in list(ranges.partitions.values()):
            if (held is None or partition.range is held) and wanted(partition.key):
                yield from partition.live(now)

    return _Scope(documents, wanted, f"{container.link}*", held=held)


def _feed_body(container: Container, rows: list[object]) -> bytes:
    return encode({"_rid": rid_text(container.rid), "Documents": rows, "_count": len(rows)})
