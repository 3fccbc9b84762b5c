"""JSON as the service keeps it: numbers are doubles, every value has a place in one order, a missing value is Undefined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from tests.simulators.cosmos.refusals import bad_request

LARGEST_EXACT = 2**53  # integers above are rounded: a JSON number is a double there


class Undefined:
    """The value of a path that a document does not have."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()

Step = str | int
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def decode(data: bytes) -> Any:
    """JSON from a request, with numbers as the service would keep them. Raises a 400 for what is not JSON."""
    try:
        return _as_kept(_decoder.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The input content is invalid because it is not valid JSON: {error}") from error


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


def _as_kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_kept(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_kept(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_EXACT:
        return int(float(value))
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        return int(value)
    return value


def rank(value: Any) -> int:
    """Undefined < null < booleans < numbers < strings < arrays < objects."""
    if value is UNDEFINED:
        return 0
    if value is None:
        return 1
    if isinstance(value, bool):
        return 2
    if isinstance(value, int | float):
        return 3
    if isinstance(value, str):
        return 4
    return 5 if isinstance(value, list) else 6


def order_key(value: Any) -> tuple[int, Any]:
    """Sorts any value among any others."""
    place = rank(value)
    if place < 2:
        return (place, 0)
    if place == 5:
        return (place, [order_key(item) for item in value])
    if place == 6:
        return (place, sorted((name, order_key(item)) for name, item in value.items()))
    return (place, value)


def at(value: Any, path: Sequence[Step]) -> Any:
    """The value at a path, or UNDEFINED."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step, UNDEFINED)
        elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
            value = value[step]
        else:
            return UNDEFINED
    return value


def scalars(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every scalar in a value, as an index names it: an element of an array is `[]`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from scalars(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item, (*path, "[]"))
    else:
        yield path


def parse_path(path: str) -> tuple[str, ...]:
    """`/a/"b c"/d` as its names. Raises a 400 if it is not a path."""
    if not path.startswith("/"):
        raise bad_request(f"The path '{path}' could not be accepted, failed near position 0: a path starts with '/'.")
    steps: list[str] = []
    rest = path[1:]
    while rest:
        if rest[0] == '"':
            end = rest.find('"', 1)
            if end < 0:
                raise bad_request(f"The path '{path}' has a quote that does not end.")
            steps.append(rest[1:end])
            rest = rest[end + 1 :].removeprefix("/")
        else:
            name, _, rest = rest.partition("/")
            steps.append(name)
    return tuple(steps)
