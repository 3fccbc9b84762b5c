"""Databases and containers: definitions, ids, and which partition a key means."""

from __future__ import annotations

import base64
import itertools
from typing import Any

from tests.simulators.cosmos import epk
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.index_policy import IndexPolicy
from tests.simulators.cosmos.json_values import UNDEFINED, at, encode, parse_path
from tests.simulators.cosmos.partitions import LogicalPartition, RangeMap
from tests.simulators.cosmos.refusals import PARTITION_KEY_MISMATCH, bad_request, not_modelled

LARGEST_TTL_S = 2_147_483_647
LARGEST_KEY_BYTES = 2048
_KNOWN = {"id", "partitionKey", "indexingPolicy", "defaultTtl"}
_SYSTEM = {"_rid", "_self", "_etag", "_ts", "_docs", "_sprocs", "_triggers", "_udfs", "_conflicts"}
_DEFAULTS: dict[str, Any] = {  # what the service adds by itself: may come back in a replace, unchanged
    "conflictResolutionPolicy": {
        "mode": "LastWriterWins",
        "conflictResolutionPath": "/_ts",
        "conflictResolutionProcedure": "",
    },
    "geospatialConfig": {"type": "Geography"},
}


class Names:
    """Resource ids, etags and times: what the service numbers by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._etags = itertools.count(1)
        self._resources = itertools.count(1)

    def etag(self) -> str:
        return f'"{next(self._etags):08x}-0000-0d00-0000-{int(self._clock.now()) & 0xFFFFFFFF:08x}0000"'

    def ts(self) -> int:
        return int(self._clock.now())

    def rid(self, parent: bytes = b"") -> bytes:
        number = next(self._resources)
        if not parent:
            return number.to_bytes(4, "little")
        return parent + (number | 0x80000000).to_bytes(4, "big")


def rid_text(rid: bytes) -> str:
    return base64.b64encode(rid).decode().replace("/", "-")


def check_id(value: Any) -> str:
    """The id of any resource. Raises a 400 for one the service would not take."""
    if not isinstance(value, str) or not value:
        raise bad_request("The input content is invalid because the required properties - 'id; ' - are missing")
    if len(value) > 255 or len(value.encode()) > 1023:
        raise bad_request("The input name is too long: an id has at most 255 characters and 1023 bytes.")
    if any(character in value for character in "/\\?#"):
        raise bad_request(
            f"The input name '{value}' is invalid. Ensure to provide a unique non-empty string without '/', '\\\\', '?' and '#'."
        )
    return value


class Database:
    def __init__(self, database_id: str, names: Names) -> None:
        self.id = database_id
        self.rid = names.rid()
        self.containers: dict[str, Container] = {}
        self._etag, self._ts = names.etag(), names.ts()

    @property
    def link(self) -> str:
        return f"dbs/{rid_text(self.rid)}/"

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "_rid": rid_text(self.rid),
            "_self": self.link,
            "_etag": self._etag,
            "_colls": "colls/",
            "_users": "users/",
            "_ts": self._ts,
        }


class Container:
    """A container: its definition, and its documents by range and partition."""

    def __init__(self, given: dict[str, Any], database: Database, names: Names) -> None:
        self.database = database
        self._names = names
        self.rid = names.rid(database.rid)
        self.id = check_id(given.get("id"))
        key = given.get("partitionKey")
        if not isinstance(key, dict) or not key.get("paths"):
            raise bad_request("The partition key definition is missing: the simulator has no container without one.")
        self.partition_key = {"kind": "Hash", **key}
        self.kind: str = self.partition_key["kind"]
        self.key_paths = [parse_path(path) for path in key["paths"]]
        if key.get("version") != 2:
            raise not_modelled("partition keys of version 1")
        if self.kind not in ("Hash", "MultiHash") or len(self.key_paths) > (3 if self.kind == "MultiHash" else 1):
            raise bad_request("The partition key definition is invalid: one path for Hash, up to three for MultiHash.")
        unknown = set(key) - {"paths", "kind", "version"}
        if unknown:
            raise not_modelled(f"the partition key's {', '.join(sorted(unknown))}")
        self.ranges = RangeMap()
        self.writes = 0
        self.take(given)

    def take(self, given: dict[str, Any]) -> None:
        """The definition, new or in place of an older one. Raises a 400 before anything is changed."""
        for name in set(given) - _KNOWN - _SYSTEM:
            if given[name] != _DEFAULTS.get(name, UNDEFINED):
                raise not_modelled(f"the container's {name}")
        if {"kind": "Hash", **given.get("partitionKey", {})} != self.partition_key:
            raise bad_request("Document collection partition key cannot be changed.")
        ttl = given.get("defaultTtl")
        if ttl is not None:
            check_ttl(ttl)
        policy = IndexPolicy(given.get("indexingPolicy"))
        if ttl is not None and policy.mode == "none":
            raise bad_request("TTL cannot be on where the indexing mode is none.")
        self.policy = policy
        self.default_ttl: int | None = ttl
        for partition in self.ranges.partitions.values():
            for document in partition.documents.values():
                document.expires_at = self.expiry(document.body, document.ts)
        self.etag, self._ts = self._names.etag(), self._names.ts()

    @property
    def link(self) -> str:
        return f"{self.database.link}colls/{rid_text(self.rid)}/"

    @property
    def path(self) -> str:
        return f"dbs/{self.database.id}/colls/{self.id}"

    def body(self) -> dict[str, Any]:
        ttl = {} if self.default_ttl is None else {"defaultTtl": self.default_ttl}
        return {
            "id": self.id,
            "indexingPolicy": self.policy.definition,
            "partitionKey": self.partition_key,
            **ttl,
            **_DEFAULTS,
            "_rid": rid_text(self.rid),
            "_ts": self._ts,
            "_self": self.link,
            "_etag": self.etag,
            "_docs": "docs/",
            "_sprocs": "sprocs/",
            "_triggers": "triggers/",
            "_udfs": "udfs/",
            "_conflicts": "conflicts/",
        }

    def expiry(self, body: dict[str, Any], ts: int) -> float | None:
        """When a document written at `ts` expires: its own `ttl` counts only where the container has a default."""
        if self.default_ttl is None:
            return None
        ttl = self.default_ttl if body.get("ttl") is None else body["ttl"]
        return None if ttl == -1 else float(ts + ttl)

    def key_of(self, body: dict[str, Any]) -> list[Any]:
        """The partition key values a document has."""
        return [at(body, path) for path in self.key_paths]

    def partition(self, header: Any) -> LogicalPartition:
        """The logical partition of a full key as the header gives it. Raises a 400 for a key that is none."""
        if not isinstance(header, list) or len(header) != len(self.key_paths):
            raise bad_request(
                "Partition key provided either doesn't correspond to definition in the collection or doesn't match "
                "partition key field values specified in the document.",
                substatus=PARTITION_KEY_MISMATCH,
            )
        components = [UNDEFINED if component == {} else component for component in header]
        for component in components:
            if isinstance(component, list | dict):
                raise bad_request(
                    f"Partition key {encode(header).decode()} is invalid: a value is an array or an object."
                )
        key = encode(header)
        if len(key) > LARGEST_KEY_BYTES:
            raise bad_request(f"The partition key is larger than {LARGEST_KEY_BYTES} bytes.")
        known = self.ranges.partitions.get(key.decode())
        return known or self.ranges.partition(key.decode(), epk.effective_key(components, self.kind))


def check_ttl(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not (value == -1 or 1 <= value <= LARGEST_TTL_S):
        raise bad_request(
            f"The input ttl '{value}' is invalid. Ensure to provide a nonzero positive integer less than or equal to "
            f"'{LARGEST_TTL_S}', or '-1' which means never expire."
        )
