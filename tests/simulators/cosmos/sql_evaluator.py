"""What a query says of a document: expressions as functions from a body to a value, Undefined included.

AND, OR and NOT have three values; a filter keeps what is true. After "Equality and comparison operators": a comparison between
values of two types is Undefined, `=` and `!=` included, and so is any but `=` between two arrays or two objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.simulators.cosmos.json_values import UNDEFINED, at, order_key, rank
from tests.simulators.cosmos.refusals import bad_request, not_modelled
from tests.simulators.cosmos.sql_parser import parse_condition
from tests.simulators.cosmos.sql_syntax import (
    Aggregate,
    All,
    ArrayOf,
    Call,
    Comparison,
    Expression,
    In,
    Literal,
    Not,
    ObjectOf,
    Parameter,
    Path,
    Query,
    Some,
)

Evaluate = Callable[[Mapping[str, Any]], Any]


def compile_condition(condition: Any) -> Evaluate:
    """The filter predicate of a patch."""
    if not isinstance(condition, str):
        raise bad_request("The condition of a patch is a string.")
    where = parse_condition(condition)
    return (lambda _: True) if where is None else compile_expression(where, {})


def compile_expression(node: Expression, parameters: Mapping[str, Any]) -> Evaluate:
    """Raises a 400 for a parameter without a value."""
    match node:
        case Literal(value):
            return lambda _: value
        case Parameter(name):
            given = bound(node, parameters)
            return lambda _: given
        case Path(steps):
            return lambda body: at(body, steps)
        case Comparison(sign, left, right):
            return _comparison(sign, compile_expression(left, parameters), compile_expression(right, parameters))
        case All(items):
            return _all([compile_expression(item, parameters) for item in items])
        case Some(items):
            return _some([compile_expression(item, parameters) for item in items])
        case Not(item):
            inner = compile_expression(item, parameters)
            return lambda body: not value if isinstance(value := inner(body), bool) else UNDEFINED
        case In(item, choices):
            found = compile_expression(item, parameters)
            return _some([_comparison("=", found, compile_expression(choice, parameters)) for choice in choices])
        case Call(name, arguments):
            return _call(name, [compile_expression(argument, parameters) for argument in arguments])
        case ArrayOf(items):
            parts = [compile_expression(item, parameters) for item in items]
            return lambda body: [value for part in parts if (value := part(body)) is not UNDEFINED]
        case ObjectOf(named):
            return projection([(name, compile_expression(item, parameters)) for name, item in named])
        case Aggregate(name):
            raise not_modelled(f"{name} inside an expression")


def bound(parameter: Parameter, parameters: Mapping[str, Any]) -> Any:
    if parameter.name not in parameters:
        raise bad_request(f"The parameter '{parameter.name}' of the query has no value.")
    return parameters[parameter.name]


def projection(parts: Sequence[tuple[str, Evaluate]]) -> Evaluate:
    return lambda body: {name: value for name, part in parts if (value := part(body)) is not UNDEFINED}


def _comparison(sign: str, left: Evaluate, right: Evaluate) -> Evaluate:
    def compare(body: Mapping[str, Any]) -> Any:
        one, other = left(body), right(body)
        if one is UNDEFINED or other is UNDEFINED:
            return UNDEFINED
        if rank(one) != rank(other) or (rank(one) > 4 and sign != "="):
            return UNDEFINED
        if sign in ("=", "!="):
            return (one == other) is (sign == "=")
        first, second = order_key(one), order_key(other)
        if sign == "<":
            return first < second
        if sign == "<=":
            return first <= second
        return first > second if sign == ">" else first >= second

    return compare


def _all(parts: list[Evaluate]) -> Evaluate:
    def every(body: Mapping[str, Any]) -> Any:
        answer: Any = True
        for part in parts:
            value = part(body)
            if value is False:
                return False
            if value is not True:
                answer = UNDEFINED
        return answer

    return every


def _some(parts: list[Evaluate]) -> Evaluate:
    def some(body: Mapping[str, Any]) -> Any:
        answer: Any = False
        for part in parts:
            value = part(body)
            if value is True:
                return True
            if value is not False:
                answer = UNDEFINED
        return answer

    return some


def _call(name: str, arguments: list[Evaluate]) -> Evaluate:
    def call(body: Mapping[str, Any]) -> Any:
        values = [argument(body) for argument in arguments]
        if name == "IS_DEFINED":
            return values[0] is not UNDEFINED
        if name == "IS_NULL":
            return values[0] is None
        if UNDEFINED in values:
            return UNDEFINED
        if name == "STARTSWITH":
            return values[0].startswith(values[1]) if all(isinstance(value, str) for value in values) else UNDEFINED
        if not isinstance(values[0], list):
            return UNDEFINED
        if name == "ARRAY_LENGTH":
            return len(values[0])
        return any(rank(item) == rank(values[1]) and item == values[1] for item in values[0])

    return call


def filter_paths(node: Expression) -> list[tuple[str, ...]]:
    """The paths whose index a filter would use. Raises a 400 for a call that no index serves."""
    match node:
        case Path():
            return [node.indexed]
        case Literal() | Parameter() | ArrayOf() | ObjectOf() | Aggregate():
            return []
        case Comparison(_, left, right):
            return [*filter_paths(left), *filter_paths(right)]
        case All(items) | Some(items):
            return [path for item in items for path in filter_paths(item)]
        case Not(item):
            return filter_paths(item)
        case In(item, choices):
            return [path for part in (item, *choices) for path in filter_paths(part)]
        case Call("ARRAY_LENGTH", _):
            raise bad_request("The simulator refuses ARRAY_LENGTH in a filter: no index serves it, Azure would scan.")
        case Call("ARRAY_CONTAINS", (Path() as held, item)):
            return [(*held.indexed, "[]"), *filter_paths(item)]
        case Call(_, arguments):
            return [path for argument in arguments for path in filter_paths(argument)]


def count_of(node: Expression | None, parameters: Mapping[str, Any]) -> int | None:
    """What TOP, OFFSET or LIMIT say. Raises a 400 unless it is a whole number, at least 0."""
    if node is None:
        return None
    value = (
        bound(node, parameters) if isinstance(node, Parameter) else node.value if isinstance(node, Literal) else None
    )
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad_request("TOP, OFFSET and LIMIT take a whole number that is at least 0.")
    return value


def aggregate(query: Query, bodies: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> list[Any]:
    """The one row of an aggregate; none where it is Undefined."""
    ((name, node),) = query.fields or ()
    assert isinstance(node, Aggregate)
    item = compile_expression(node.item, parameters)
    values = [value for body in bodies if (value := item(body)) is not UNDEFINED]
    result: Any = len(values)
    if node.name != "COUNT":
        if node.name in ("SUM", "AVG") and any(rank(value) != 3 for value in values):
            result = UNDEFINED
        elif node.name == "SUM":
            result = sum(values)
        elif not values:
            result = UNDEFINED
        elif node.name == "AVG":
            result = sum(values) / len(values)
        else:
            result = (min if node.name == "MIN" else max)(values, key=order_key)
    if query.value:
        return [] if result is UNDEFINED else [result]
    return [{} if result is UNDEFINED else {name: result}]
