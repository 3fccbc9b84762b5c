"""JSON that has one meaning only: UTF-8, no name twice in an object, no NaN, no number or nesting that Python cannot hold.

Two readers that choose differently between ``"sub": "a"`` and a later ``"sub": "b"`` are how a token means one person to whoever
signs it and another to whoever reads it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


class InvalidJson(Exception):
    """Says what is wrong, without repeating any of it."""


def read_object(text: bytes) -> dict[str, Any]:
    """The object in ``text``. Raises InvalidJson."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise InvalidJson("it is not UTF-8") from None
    except (ValueError, RecursionError):  # also a number with too many digits
        raise InvalidJson("it is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidJson("it is not an object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise InvalidJson("a name is there twice")
    return read


def _no_number(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is no number")
