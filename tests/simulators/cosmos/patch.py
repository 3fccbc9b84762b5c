"""Partial update: what a list of patch operations makes of a document.

After "Partial document update in Azure Cosmos DB" and its FAQ: at most ten operations, all or none, not on system
properties; we also refuse the id and the partition key. `move` is not modelled.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.simulators.cosmos.refusals import Refusal, bad_request, not_modelled

MOST = 10
_KINDS = {"add", "set", "replace", "remove", "incr"}
_SYSTEM = {"_id", "_ts", "_etag", "_rid", "_self", "_attachments"}


def apply(body: dict[str, Any], operations: Any, *, fixed: list[tuple[str, ...]]) -> dict[str, Any]:
    """A changed copy of `body`. `fixed` are the partition key's paths. Raises a 400 if any operation cannot be done."""
    if not isinstance(operations, list) or not operations:
        raise bad_request("The patch request has no operations.")
    if len(operations) > MOST:
        raise bad_request(f"The number of patch operations can't exceed '{MOST}'.")
    changed = copy.deepcopy(body)
    for number, operation in enumerate(operations, start=1):
        _apply_one(changed, operation, number, fixed)
    return changed


def _apply_one(body: dict[str, Any], operation: Any, number: int, fixed: list[tuple[str, ...]]) -> None:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise bad_request(f"Patch operation({number}) has no path.")
    kind = operation.get("op")
    if kind not in _KINDS or set(operation) - {"op", "path", "value"}:
        raise not_modelled(f"the patch operation {operation}")
    steps = _steps(operation["path"], number)
    if steps == ("id",) or steps[0] in _SYSTEM or any(steps == path[: len(steps)] for path in fixed):
        raise bad_request(f"Patch operation({number}): the path '{operation['path']}' can't be changed.")
    if kind != "remove" and "value" not in operation:
        raise bad_request(f"Patch operation({number}): '{kind}' has no value.")
    parent = _parent(body, steps, number)
    if isinstance(parent, list):
        _on_list(parent, kind, steps[-1], operation.get("value"), number)
    else:
        _on_object(parent, kind, steps[-1], operation.get("value"), number)


def _steps(path: str, number: int) -> tuple[str, ...]:
    if not path.startswith("/") or len(path) < 2:
        raise bad_request(f"Patch operation({number}): the path '{path}' is invalid.")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/"))


def _parent(body: dict[str, Any], steps: tuple[str, ...], number: int) -> Any:
    found: Any = body
    for step in steps[:-1]:
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            raise _missing(number, steps)
    if not isinstance(found, dict | list):
        raise _missing(number, steps)
    return found


def _missing(number: int, steps: tuple[str, ...]) -> Refusal:
    return bad_request(
        f"For Operation({number}): the path '/{'/'.join(steps)}' can only be used where its parent exists."
    )


def _on_object(parent: dict[str, Any], kind: str, name: str, value: Any, number: int) -> None:
    if kind in ("replace", "remove") and name not in parent:
        raise bad_request(
            f"For Operation({number}): {kind.capitalize()} Operation can only be performed on existing paths: '{name}'."
        )
    if kind == "remove":
        del parent[name]
    elif kind == "incr":
        parent[name] = _increased(parent.get(name, 0), value, number)
    else:
        parent[name] = value


def _on_list(parent: list[Any], kind: str, name: str, value: Any, number: int) -> None:
    if name == "-" and kind == "add":
        parent.append(value)
        return
    if not name.isdecimal() or int(name) > len(parent) or (int(name) == len(parent) and kind != "add"):
        raise bad_request(f"For Operation({number}): the index '{name}' is not in the array.")
    at = int(name)
    if kind == "add":
        parent.insert(at, value)
    elif kind == "remove":
        del parent[at]
    elif kind == "incr":
        parent[at] = _increased(parent[at], value, number)
    else:
        parent[at] = value


def _increased(value: Any, by: Any, number: int) -> Any:
    for given in (value, by):
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise bad_request(f"For Operation({number}): Increment Operation can only be performed on numbers.")
    return value + by
