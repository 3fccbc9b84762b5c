"""A request as the account sees it, its answer, and the headers it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.simulators.cosmos.json_values import decode
from tests.simulators.cosmos.operations import Operation
from tests.simulators.cosmos.refusals import bad_request, not_modelled

_TRANSPORT = {
    "accept",
    "accept-encoding",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "transfer-encoding",
    "traceparent",
    "tracestate",
}
_KNOWN = {
    "a-im",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "prefer",
    "x-ms-activity-id",
    "x-ms-client-id",
    "x-ms-client-request-id",
    "x-ms-consistency-level",
    "x-ms-continuation",
    "x-ms-cosmos-allow-tentative-writes",
    "x-ms-cosmos-batch-atomic",
    "x-ms-cosmos-batch-continue-on-error",
    "x-ms-cosmos-correlated-activityid",
    "x-ms-cosmos-intended-collection-rid",
    "x-ms-cosmos-is-batch-request",
    "x-ms-cosmos-is-query-plan-request",
    "x-ms-cosmos-offer-autopilot-settings",
    "x-ms-cosmos-query-version",
    "x-ms-cosmos-sdk-supportedcapabilities",
    "x-ms-cosmos-supported-query-features",
    "x-ms-date",
    "x-ms-documentdb-is-upsert",
    "x-ms-documentdb-isquery",
    "x-ms-documentdb-partitionkey",
    "x-ms-documentdb-partitionkeyrangeid",
    "x-ms-documentdb-query-enable-scan",
    "x-ms-documentdb-query-enablecrosspartition",
    "x-ms-documentdb-query-iscontinuationexpected",
    "x-ms-end-epk",
    "x-ms-max-item-count",
    "x-ms-offer-throughput",
    "x-ms-read-key-type",
    "x-ms-return-client-request-id",
    "x-ms-session-token",
    "x-ms-start-epk",
    "x-ms-thinclient-proxy-operation-type",
    "x-ms-thinclient-proxy-resource-type",
    "x-ms-version",
}
VERSION = "2020-07-15"  # of the protocol: the one that the SDK speaks


@dataclass
class Call:
    """`segments` is the path, unquoted; header names are in lower case."""

    method: str
    segments: Sequence[str]
    headers: Mapping[str, str]
    data: bytes

    @cached_property
    def body(self) -> Any:
        return decode(self.data)

    def says(self, header: str) -> bool:
        """Whether a switch is on. The SDK writes Python's True."""
        return self.headers.get(header, "").lower() == "true"

    @cached_property
    def partition_key(self) -> Any:
        """The partition key header's JSON, or None without one."""
        given = self.headers.get("x-ms-documentdb-partitionkey")
        return None if given is None else decode(given.encode())

    def etags(self, *known: str) -> dict[str, str | None]:
        """If-Match and If-None-Match as keyword arguments; raises a 400 for one that is not in `known`."""
        found: dict[str, str | None] = {}
        for header, name in (("if-match", "if_match"), ("if-none-match", "if_none_match")):
            value = self.headers.get(header)
            if name in known:
                found[name] = value
            elif value is not None:
                raise not_modelled(f"the header {header} with this operation")
        return found

    @property
    def minimal(self) -> bool:
        return self.headers.get("prefer") == "return=minimal"


@dataclass
class Reply:
    """`body` is JSON, ready to send, or None."""

    status: int
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    charge: float = 0.0
    operations: list[Operation] = field(default_factory=list)


def check_headers(call: Call) -> None:
    """Raise a 400 for a header whose meaning the simulator does not know."""
    for name in call.headers:
        if name not in _TRANSPORT and name not in _KNOWN:
            raise not_modelled(f"the header {name}: {call.headers[name][:100]}")
    if call.headers.get("x-ms-version", VERSION) != VERSION:
        raise bad_request(
            f"The simulator speaks version {VERSION} of the protocol, not {call.headers['x-ms-version']}."
        )
    if call.headers.get("x-ms-consistency-level", "Session") not in ("Session", "Eventual", "ConsistentPrefix"):
        raise bad_request("The consistency level is stronger than the account's, which is Session.")
    if call.headers.get("prefer", "return=minimal") != "return=minimal":
        raise not_modelled(f"Prefer: {call.headers['prefer']}")
    if call.says("x-ms-cosmos-allow-tentative-writes"):
        raise not_modelled("writes in several regions")
