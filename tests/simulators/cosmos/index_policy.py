"""What an indexing policy indexes, and the queries it cannot serve.

After "Indexing policies in Azure Cosmos DB": the more precise path wins, `/?` is more precise than `/*`, `id` and `_ts` are
always indexed while the mode is consistent, the paths of the partition key are not, and ORDER BY of several paths needs a
composite index with just these paths, in this order, in these directions or in all of them reversed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulators.cosmos.json_values import parse_path, scalars
from tests.simulators.cosmos.refusals import bad_request, not_modelled

DEFAULT: dict[str, Any] = {
    "indexingMode": "consistent",
    "automatic": True,
    "includedPaths": [{"path": "/*"}],
    "excludedPaths": [{"path": '/"_etag"/?'}],
}
MOST_REMEMBERED = 10_000
_KNOWN = {"indexingMode", "automatic", "includedPaths", "excludedPaths", "compositeIndexes", "spatialIndexes"}
_SYSTEM = {("id",), ("_ts",)}
_ALWAYS = {"_rid", "_self", "_attachments"}


@dataclass(frozen=True)
class _Rule:
    prefix: tuple[str, ...]
    scalar: bool  # ends with `/?`: just this value; otherwise `/*`: everything below
    included: bool

    def covers(self, path: tuple[str, ...]) -> bool:
        if self.scalar:
            return path == self.prefix
        return len(path) > len(self.prefix) and path[: len(self.prefix)] == self.prefix

    @property
    def precision(self) -> tuple[int, bool, bool]:
        return (len(self.prefix), self.scalar, self.included)


class IndexPolicy:
    """A policy as given, checked. Raises a 400 for what the service would not accept or the simulator does not model."""

    def __init__(self, given: dict[str, Any] | None) -> None:
        policy: dict[str, Any] = (
            DEFAULT if given is None else {"automatic": True, "indexingMode": "consistent", **given}
        )
        unknown = set(policy) - _KNOWN
        if unknown:
            raise not_modelled(f"the indexing policy's {', '.join(sorted(unknown))}")
        if policy.get("spatialIndexes"):
            raise not_modelled("spatial indexes")
        self.mode = str(policy["indexingMode"]).lower()
        if self.mode not in ("consistent", "none"):
            raise not_modelled(f"the indexing mode '{policy['indexingMode']}'")
        if policy["automatic"] is not True and self.mode != "none":
            raise not_modelled("an indexing policy that is not automatic")
        included, excluded = policy.get("includedPaths", []), policy.get("excludedPaths", [])
        self._rules = [_rule(entry, included=True) for entry in included]
        self._rules += [_rule(entry, included=False) for entry in excluded]
        if self.mode == "consistent" and not any(rule.prefix == () and not rule.scalar for rule in self._rules):
            raise bad_request(
                'The special mandatory indexing path "/" is not provided in any of the path type sets. '
                "Please provide this path in one of the sets."
            )
        self._rules.sort(key=lambda rule: rule.precision, reverse=True)
        self._answers: dict[tuple[str, ...], bool] = {}
        self._composites = [_composite(entry) for entry in policy.get("compositeIndexes", [])]
        self.definition = {
            "indexingMode": self.mode,
            "automatic": policy["automatic"],
            "includedPaths": included,
            "excludedPaths": excluded,
        }
        if policy.get("compositeIndexes"):
            self.definition["compositeIndexes"] = policy["compositeIndexes"]

    def indexes(self, path: tuple[str, ...]) -> bool:
        """Whether the value at this path has a range index. An element of any array is `[]`."""
        known = self._answers.get(path)
        if known is None:
            known = self._decide(path)
            if len(self._answers) < MOST_REMEMBERED:
                self._answers[path] = known
        return known

    def _decide(self, path: tuple[str, ...]) -> bool:
        if self.mode == "none":
            return False
        if path in _SYSTEM:
            return True
        for rule in self._rules:
            if rule.covers(path):
                return rule.included
        return False

    def terms(self, body: dict[str, Any]) -> int:
        """How many values of a document are indexed."""
        return sum(1 for path in scalars(body) if path[0] not in _ALWAYS and self.indexes(path))

    def check_filter(self, paths: Sequence[tuple[str, ...]]) -> None:
        """Refuse a filter that Azure would serve by reading every document of its scope."""
        missing = sorted({"/" + "/".join(path) for path in paths if not self.indexes(path)})
        if missing:
            raise bad_request(
                f"The simulator refuses a filter on paths without an index: {', '.join(missing)}. "
                "Azure would scan every document; include the path in the indexing policy."
            )

    def check_order(self, order: Sequence[tuple[tuple[str, ...], bool]]) -> None:
        """Refuse an ORDER BY (paths, each with whether it is descending) that the policy cannot serve, as Azure does."""
        if len(order) == 1:
            if not self.indexes(order[0][0]):
                raise bad_request("The index path corresponding to the specified order-by item is excluded.")
            return
        wanted = tuple(order)
        reverse = tuple((path, not descending) for path, descending in order)
        if wanted not in self._composites and reverse not in self._composites:
            raise bad_request(
                "The order by query does not have a corresponding composite index that it can be served from."
            )


def _rule(entry: Any, *, included: bool) -> _Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise bad_request("The indexing policy has an entry without a path.")
    unknown = set(entry) - {"path", "indexes"}
    if unknown:
        raise not_modelled(f"the indexed path's {', '.join(sorted(unknown))}")
    path: str = entry["path"]
    steps = parse_path(path)
    if not steps or steps[-1] not in ("?", "*"):
        raise bad_request(f"The indexing path '{path}' could not be accepted: a valid path ends with /? or /*.")
    return _Rule(steps[:-1], steps[-1] == "?", included)


def _composite(entry: Any) -> tuple[tuple[tuple[str, ...], bool], ...]:
    if not isinstance(entry, list) or len(entry) < 2:
        raise bad_request("A composite index has at least two paths.")
    index = []
    for part in entry:
        if not isinstance(part, dict) or set(part) - {"path", "order"}:
            raise bad_request("A composite index path has a path and an order.")
        order = part.get("order", "ascending")
        if order not in ("ascending", "descending"):
            raise bad_request(f"The order '{order}' of a composite index is neither ascending nor descending.")
        steps = parse_path(part["path"])
        if steps[-1] in ("?", "*"):
            raise bad_request(f"The composite index path '{part['path']}' must not end with /? or /*.")
        index.append((steps, order == "descending"))
    return tuple(index)
