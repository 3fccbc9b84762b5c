"""From a request to the place it is about, and the headers that tell a client which place answered."""

from __future__ import annotations

from tests.simulators.cosmos.containers import Container, rid_text
from tests.simulators.cosmos.partitions import LogicalPartition, PhysicalRange
from tests.simulators.cosmos.refusals import CONTAINER_RID_MISMATCH, SESSION_NOT_AVAILABLE, Refusal, bad_request
from tests.simulators.cosmos.requests import Call


def partition_of(container: Container, call: Call) -> LogicalPartition:
    """The logical partition that the request names in full. Raises a 400 without one, 404/1002 for a session ahead of it."""
    if call.partition_key is None:
        raise bad_request("PartitionKey value must be supplied for this operation.")
    partition = container.partition(call.partition_key)
    _check_session(partition.range, call)
    return partition


def check_container(container: Container, call: Call) -> None:
    """Raise 400/1024 when the client means a container of this name that is no more."""
    intended = call.headers.get("x-ms-cosmos-intended-collection-rid")
    if intended is not None and intended != rid_text(container.rid):
        raise bad_request(
            "The container was deleted and made again: its resource id is another.", substatus=CONTAINER_RID_MISMATCH
        )


def headers_of(container: Container, held: PhysicalRange | None) -> dict[str, str]:
    headers = {"x-ms-alt-content-path": container.path, "x-ms-content-path": rid_text(container.rid)}
    if held is not None:
        headers["x-ms-documentdb-partitionkeyrangeid"] = held.id
        headers["lsn"] = str(held.lsn)
        headers["x-ms-session-token"] = f"{held.id}:-1#{held.lsn}"
    return headers


def _check_session(held: PhysicalRange, call: Call) -> None:
    for pair in call.headers.get("x-ms-session-token", "").split(","):
        range_id, _, token = pair.partition(":")
        if range_id == held.id and token and int(token.split("#")[1]) > held.lsn:
            raise Refusal(
                404, "The read session is not available for the input session token.", substatus=SESSION_NOT_AVAILABLE
            )
