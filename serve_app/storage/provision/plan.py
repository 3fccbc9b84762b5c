"""What is to be done to an account: its database, throughput and containers as they are, against the layout. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from serve_app.storage.cosmos.layout import CONTAINERS, Container

Action = Literal["create", "change", "keep", "stuck"]
"""``stuck``: it is not as it has to be, and cannot be changed in place."""


class Step(Struct, frozen=True, kw_only=True):
    """``name`` is a container's, "database", or "throughput". ``detail`` says what differs, or what to do."""

    action: Action
    name: str
    detail: str = ""


class FoundContainer(Struct, frozen=True, kw_only=True):
    """A container as the service describes it."""

    name: str
    key: tuple[str, ...]
    indexed: frozenset[str]
    excluded: frozenset[str]
    default_ttl: int | None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> FoundContainer:
        policy = properties.get("indexingPolicy") or {}
        return cls(
            name=str(properties.get("id")),
            key=tuple((properties.get("partitionKey") or {}).get("paths") or ()),
            indexed=frozenset(_paths(policy.get("includedPaths"))),
            # The service adds its own etag to what is excluded.
            excluded=frozenset(_paths(policy.get("excludedPaths"))) - {'/"_etag"/?'},
            default_ttl=properties.get("defaultTtl"),
        )


class FoundAccount(Struct, frozen=True, kw_only=True):
    """``database``: whether it is there. It is bought at ``autoscale_rus`` or ``manual_rus``, or neither, where that is shown."""

    database: bool
    throughput_shown: bool = True
    autoscale_rus: int | None = None
    manual_rus: int | None = None
    containers: tuple[FoundContainer, ...] = ()


def plan(found: FoundAccount, *, max_rus: int) -> list[Step]:
    """One step for each thing there has to be, in the order they are made."""
    there = {container.name: container for container in found.containers}
    return [
        Step(action="keep" if found.database else "create", name="database"),
        _throughput(found, max_rus),
        *(_container(wanted, there.get(wanted.name)) for wanted in CONTAINERS),
    ]


def _throughput(found: FoundAccount, max_rus: int) -> Step:
    wanted = f"autoscale up to {max_rus} RU/s, shared by all containers"
    if not found.throughput_shown:
        return Step(action="keep", name="throughput", detail="not shown to Entra ID")
    if max_rus == 0:
        if found.autoscale_rus is None and found.manual_rus is None:
            return Step(action="keep", name="throughput", detail="none, as for a serverless account")
        return Step(
            action="stuck",
            name="throughput",
            detail="the database has throughput of its own; set PARLEY_AZURE__COSMOS_MAX_RUS to it",
        )
    if not found.database:
        return Step(action="create", name="throughput", detail=wanted)
    if found.manual_rus is not None:
        return Step(
            action="stuck",
            name="throughput",
            detail=f"manual at {found.manual_rus} RU/s; migrate it to autoscale in the portal, or with "
            "`az cosmosdb sql database throughput migrate --throughput-type autoscale`",
        )
    if found.autoscale_rus is None:
        return Step(
            action="stuck",
            name="throughput",
            detail="the database has none to share, which is chosen when it is made; for a serverless account set "
            "PARLEY_AZURE__COSMOS_MAX_RUS=0, else name another database in PARLEY_AZURE__COSMOS_DATABASE",
        )
    if found.autoscale_rus != max_rus:
        return Step(
            action="change", name="throughput", detail=f"autoscale from {found.autoscale_rus} to {max_rus} RU/s"
        )
    return Step(action="keep", name="throughput", detail=wanted)


def _container(wanted: Container, there: FoundContainer | None) -> Step:
    key = ", ".join(wanted.key)
    if there is None:
        return Step(action="create", name=wanted.name, detail=f"partition key {key}")
    if there.key != wanted.key:
        return Step(
            action="stuck",
            name=wanted.name,
            detail=f"its partition key is {', '.join(there.key) or 'missing'} and has to be {key}, which cannot be changed; "
            "delete the container if it holds nothing, or name another database in PARLEY_AZURE__COSMOS_DATABASE",
        )
    differences = [*_index_differences(wanted, there), *_ttl_differences(wanted, there)]
    if differences:
        return Step(action="change", name=wanted.name, detail="; ".join(differences))
    return Step(action="keep", name=wanted.name, detail=f"partition key {key}")


def _index_differences(wanted: Container, there: FoundContainer) -> list[str]:
    policy = wanted.indexing_policy
    indexed, excluded = frozenset(_paths(policy["includedPaths"])), frozenset(_paths(policy["excludedPaths"]))
    said = []
    if missing := indexed - there.indexed:
        said.append(f"index {_listed(missing)}")
    if needless := there.indexed - indexed:
        said.append(f"index no longer {_listed(needless)}")
    if not said and excluded != there.excluded:
        said.append(f"exclude {_listed(excluded)} from indexing")
    return said


def _ttl_differences(wanted: Container, there: FoundContainer) -> list[str]:
    if wanted.default_ttl == there.default_ttl:
        return []
    now = "off" if there.default_ttl is None else f"{there.default_ttl} s"
    return [f"time to live is {now}: let documents say their own"]


def _paths(entries: Any) -> list[str]:
    return [str(entry.get("path")) for entry in entries or () if isinstance(entry, Mapping)]


def _listed(paths: frozenset[str]) -> str:
    return ", ".join(sorted(path.removesuffix("/?") for path in paths))
