"""Calls between stages as bytes: a method's arguments and its result, for those that travel on the channel.

Pickles, because the ports pass plain domain types and this is what carries them all; but only of the project's own structures
and of a few plain types, so that a peer can at most make us build values. It gets no class in its hands, only what builds its
instances: a pickle can set attributes of whatever it names. Peers are known to each other by the graph's secret before a
byte is read.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from msgspec import Struct

_CLASSES = {
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytearray"),
    ("collections", "OrderedDict"),
}
"""Their attributes cannot be set."""
_REBUILD = ("msgspec._utils", "rebuild")
"""Builds structures whose fields have to be named."""


class NotOurs(ValueError):
    """A value that calls between stages do not carry."""


def pack(value: Any) -> bytes:
    """Raises NotOurs for what cannot be carried."""
    try:
        return pickle.dumps(value, 5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise NotOurs(str(error)) from error


def unpack(data: bytes) -> Any:
    """The reverse. Raises NotOurs, whatever the bytes."""
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except NotOurs:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        raise NotOurs(repr(error)) from error


_found: dict[tuple[str, str], Any] = {}
"""Classes that have been looked up; bounded, because it holds only those that may be."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _found.get((module, name))
        return known if known is not None else self._look_up(module, name)

    def _look_up(self, module: str, name: str) -> Any:
        ours = module.startswith("serve_app.") and "." not in name
        if not ours and (module, name) not in _CLASSES and (module, name) != _REBUILD:
            raise NotOurs(f"{module}.{name}")
        found = super().find_class(module, name)
        if ours and not (isinstance(found, type) and issubclass(found, Struct)):
            raise NotOurs(f"{module}.{name}")
        if (module, name) not in _CLASSES:
            found = type(found).__call__.__get__(found)
        _found[module, name] = found
        return found
