"""A query over a scope of documents: index policy, order, pages and the tokens that continue them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.simulators.cosmos import charges
from tests.simulators.cosmos.index_policy import IndexPolicy
from tests.simulators.cosmos.json_values import at, decode, encode, order_key
from tests.simulators.cosmos.partitions import Document
from tests.simulators.cosmos.refusals import Refusal, bad_request, not_modelled
from tests.simulators.cosmos.sql_evaluator import (
    aggregate,
    compile_expression,
    count_of,
    filter_paths,
    projection,
)
from tests.simulators.cosmos.sql_parser import parse
from tests.simulators.cosmos.sql_syntax import Query

LARGEST_PAGE_BYTES = 4 * 1024 * 1024
DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
_SEAL = b"a continuation token comes back as it went out"


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[Any]
    continuation: str | None
    charge: float


@dataclass(frozen=True, slots=True)
class Statement:
    """A query as posted: its text, its parameters and what they mean."""

    text: str
    parameters: Mapping[str, Any]
    query: Query


def read_statement(body: Any) -> Statement:
    """Raises a 400 for a body that is no query or one the simulator does not model."""
    if not isinstance(body, dict) or not isinstance(body.get("query"), str) or set(body) - {"query", "parameters"}:
        raise bad_request("A query request has a query and perhaps parameters.")
    parameters: dict[str, Any] = {}
    for parameter in body.get("parameters") or []:
        if not isinstance(parameter, dict) or set(parameter) != {"name", "value"}:
            raise bad_request("A parameter has a name and a value.")
        parameters[parameter["name"]] = parameter["value"]
    return Statement(body["query"], parameters, parse(body["query"]))


def page_size(header: str | None) -> int:
    """Rows per page from x-ms-max-item-count; -1 leaves it to the service."""
    if header is None:
        return DEFAULT_PAGE
    try:
        asked = int(header)
    except ValueError:
        raise bad_request(f"x-ms-max-item-count '{header}' is not a number.") from None
    if asked == -1:
        return LARGEST_PAGE
    if asked < 1:
        raise bad_request(f"x-ms-max-item-count '{header}' is neither -1 nor at least 1.")
    return min(asked, LARGEST_PAGE)


def check_policy(query: Query, policy: IndexPolicy, *, scans: bool) -> None:
    """Raises a 400 for what the indexing policy does not serve; `scans` lets filters without an index through."""
    if query.where is not None and not scans:
        policy.check_filter(filter_paths(query.where))
    if query.order:
        policy.check_order([(path.indexed, descending) for path, descending in query.order])


def run(
    statement: Statement,
    documents: Iterable[Document],
    *,
    scope: str,
    size: int,
    continuation: str | None,
) -> Page:
    """One page. `scope` is what a token is bound to besides the query: container and partition."""
    query, parameters = statement.query, statement.parameters
    held = list(documents)
    keep = compile_expression(query.where, parameters) if query.where is not None else None
    found = [document for document in held if keep is None or keep(document.body) is True]
    if query.aggregates:
        rows = aggregate(query, [document.body for document in found], parameters)
        return Page(rows, None, charges.query(16, len(found), len(held)))
    found = _sorted(query, found)
    taken, after = _resume(statement, scope, continuation)
    if after is not None:
        found = [document for document in found if _is_after(query, _place(query, document), after)]
    skip = (count_of(query.offset, parameters) or 0) if after is None else 0
    most = count_of(query.top if query.top is not None else query.limit, parameters)
    left = len(found) if most is None else max(0, most - taken)
    window = found[skip : skip + left]
    shown, size_bytes = _fill(window, size)
    rows = _rows(query, shown, parameters)
    more = len(shown) < len(window)
    token = _seal(statement, scope, taken + len(shown), _place(query, shown[-1])) if more else None
    return Page(rows, token, charges.query(size_bytes, len(shown), len(held)))


def _fill(window: list[Document], size: int) -> tuple[list[Document], int]:
    total = 0
    for count, document in enumerate(window):
        if count == size or (count and total + len(document.data) > LARGEST_PAGE_BYTES):
            return window[:count], total
        total += len(document.data)
    return window, total


def _rows(query: Query, documents: list[Document], parameters: Mapping[str, Any]) -> list[Any]:
    if query.fields is None:
        return [document.body for document in documents]
    parts = [(name, compile_expression(item, parameters)) for name, item in query.fields]
    if not query.value:
        shape = projection(parts)
        return [shape(document.body) for document in documents]
    wrapped = projection([("row", parts[0][1])])
    return [row["row"] for document in documents if (row := wrapped(document.body))]


def _place(query: Query, document: Document) -> list[Any]:
    return [order_key(at(document.body, path.steps)) for path, _ in query.order] + [document.number]


def _sorted(query: Query, found: list[Document]) -> list[Document]:
    found = sorted(found, key=lambda document: document.number)
    for path, descending in reversed(query.order):
        # A stable sort: rows that tie stay in the order of their numbers.
        found.sort(key=lambda document, path=path: order_key(at(document.body, path.steps)), reverse=descending)  # type: ignore[misc]
    return found


def _is_after(query: Query, place: list[Any], mark: list[Any]) -> bool:
    for (_, descending), one, other in zip(query.order, place, mark, strict=False):
        if one != other:
            return bool(one < other) if descending else bool(one > other)
    return bool(place[-1] > mark[-1])


def _seal(statement: Statement, scope: str, taken: int, place: list[Any]) -> str:
    payload = encode({"of": _fingerprint(statement, scope), "taken": taken, "place": place})
    seal = hmac.new(_SEAL, payload, hashlib.sha256).digest()[:12]
    return base64.urlsafe_b64encode(seal + payload).decode()


def _resume(statement: Statement, scope: str, token: str | None) -> tuple[int, list[Any] | None]:
    if token is None:
        return 0, None
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        raise _invalid_token() from None
    seal, payload = raw[:12], raw[12:]
    if not hmac.compare_digest(hmac.new(_SEAL, payload, hashlib.sha256).digest()[:12], seal):
        raise _invalid_token()
    said = decode(payload)
    if said["of"] != _fingerprint(statement, scope):
        raise _invalid_token()
    place = [tuple(part) if isinstance(part, list) else part for part in said["place"]]
    return said["taken"], place


def _fingerprint(statement: Statement, scope: str) -> str:
    return hashlib.sha256(encode([statement.text, sorted(statement.parameters.items()), scope])).hexdigest()[:24]


def _invalid_token() -> Refusal:
    return bad_request("Invalid Continuation Token: it is bound to its query and partition and comes back unchanged.")


def plan(query: Query) -> dict[str, Any]:
    """The query plan of what every range answers by itself. Raises a 400 for what would have to be merged."""
    if query.needs_every_range:
        raise not_modelled("a cross-partition query with ORDER BY, TOP, OFFSET or an aggregate")
    return {
        "partitionedQueryExecutionInfoVersion": 2,
        "queryInfo": {
            "distinctType": "None",
            "groupByExpressions": [],
            "groupByAliases": [],
            "orderBy": [],
            "orderByExpressions": [],
            "aggregates": [],
            "hasSelectValue": query.value,
            "rewrittenQuery": "",
            "groupByAliasToAggregateType": {},
        },
        "queryRanges": [{"min": "", "max": "FF", "isMinInclusive": True, "isMaxInclusive": False}],
    }
