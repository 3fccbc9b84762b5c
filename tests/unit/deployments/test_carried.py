"""Whatever the ports between stages take and give can be carried: an example of every type they name arrives as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pytest
from msgspec import Struct

from deployments.pickled import pack, unpack
from serve_app.access.port import Access, Directory
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.quotas.port import RequestShares
from serve_app.rates.port import Rates
from serve_app.storage.port import Store

PORTS: tuple[type, ...] = (Store, Access, Directory, RequestShares, Rates, PromptBuilder, ModelGateway)
PLAIN: dict[Any, Any] = {
    str: "ü",
    int: 2**80,
    float: 1.5,
    bool: True,
    bytes: b"\xff\x00",
    NoneType: None,
    date: date(2026, 1, 2),
    datetime: datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    Any: {"deep": [2**80, None, {"a": "b"}]},
}


def methods() -> list[tuple[str, Any]]:
    """What is asked by a packed call, with the types of all arguments and of the result."""
    return [
        (f"{port.__name__}.{name}", list(get_type_hints(method).values()))
        for port in PORTS
        for name, method in inspect.getmembers(port, inspect.isfunction)
        if not name.startswith("_")
    ]


def examples(kind: Any, bound: Mapping[Any, Any] | None = None) -> list[Any]:
    """One value of each form that a type has; of a structure, of each of its fields."""
    bound = bound or {}
    if isinstance(kind, TypeVar):
        return examples(bound[kind], bound)
    if kind in PLAIN or kind is None:
        return [PLAIN.get(kind)]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return [value for arm in arguments for value in examples(arm, bound)]
    if origin is Literal:
        return list(arguments)
    if origin in (list, Sequence, Iterable):
        return [examples(arguments[0], bound)]
    if origin is tuple:
        if arguments[-1] is ...:
            return [tuple(examples(arguments[0], bound))]
        return [tuple(examples(argument, bound)[0] for argument in arguments)]
    if origin in (dict, Mapping):
        return [{key: value for key in examples(arguments[0], bound) for value in examples(arguments[1], bound)}]
    if origin is not None and issubclass(origin, Struct):
        return structures(origin, dict(zip(origin.__parameters__, arguments, strict=True)))
    if isinstance(kind, type) and issubclass(kind, Struct):
        return structures(kind, {})
    raise AssertionError(f"no example of {kind!r}: can it be carried?")


def structures(kind: type[Struct], bound: Mapping[Any, Any]) -> list[Struct]:
    hints = get_type_hints(kind)
    fields = {name: examples(hints[name], bound) for name in kind.__struct_fields__}
    whole = {name: values[0] for name, values in fields.items()}
    return [kind(**whole), *(kind(**whole | {name: value}) for name, values in fields.items() for value in values[1:])]


@pytest.mark.parametrize("types", [pytest.param(types, id=name) for name, types in methods()])
def test_every_value_that_a_port_passes_is_carried(types: list[Any]) -> None:
    for kind in types:
        if get_origin(kind) is Callable:  # of the model gateway, what it shows to: pieces have a way of their own
            continue
        for value in examples(kind):
            assert unpack(pack(value)) == value
