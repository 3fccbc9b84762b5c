"""Effective partition keys: where on the ring of hashes a logical partition lies.

Version 2 hashing, for one path (`Hash`) and for hierarchies (`MultiHash`: one hash per level, one after the other). MurmurHash3
x64 128 over the binary form of a component; a test compares every answer with what the SDK computes.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from tests.simulators.cosmos.json_values import UNDEFINED
from tests.simulators.cosmos.refusals import not_modelled

MINIMUM: Final = ""
MAXIMUM: Final = "FF"  # exclusive; the two highest bits of a hash are cleared, so none reaches it
_MASK = 0xFFFFFFFFFFFFFFFF
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def effective_key(components: list[Any], kind: str) -> str:
    """The upper-case hex of a (possibly partial) key."""
    if kind == "MultiHash":
        return "".join(_hash_hex(_binary(component)) for component in components)
    return _hash_hex(b"".join(_binary(component) for component in components))


def _binary(value: Any) -> bytes:
    if value is UNDEFINED:
        return b"\x00"
    if value is None:
        return b"\x01"
    if value is False:
        return b"\x02"
    if value is True:
        return b"\x03"
    if isinstance(value, int | float):
        return b"\x05" + struct.pack("<d", float(value))
    if isinstance(value, str):
        return b"\x08" + value.encode() + b"\xff"
    raise not_modelled(f"a partition key of type {type(value).__name__}")


def _hash_hex(data: bytes) -> str:
    low, high = murmur3_128(data)
    digest = bytearray(high.to_bytes(8, "big") + low.to_bytes(8, "big"))
    digest[0] &= 0x3F
    return digest.hex().upper()


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _MASK


def _mixed(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ (value >> 33)


def murmur3_128(data: bytes) -> tuple[int, int]:
    """MurmurHash3 x64 128 with seed 0: its low and its high half."""
    h1 = h2 = 0
    whole = len(data) - len(data) % 16
    for at in range(0, whole, 16):
        k1, k2 = struct.unpack_from("<QQ", data, at)
        h1 ^= _rotated(k1 * _C1 & _MASK, 31) * _C2 & _MASK
        h1 = ((_rotated(h1, 27) + h2) * 5 + 0x52DCE729) & _MASK
        h2 ^= _rotated(k2 * _C2 & _MASK, 33) * _C1 & _MASK
        h2 = ((_rotated(h2, 31) + h1) * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    k1 = int.from_bytes(tail[:8], "little")
    k2 = int.from_bytes(tail[8:], "little")
    h2 ^= _rotated(k2 * _C2 & _MASK, 33) * _C1 & _MASK
    h1 ^= _rotated(k1 * _C1 & _MASK, 31) * _C2 & _MASK
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1, h2 = _mixed(h1), _mixed(h2)
    h1 = (h1 + h2) & _MASK
    return h1, (h2 + h1) & _MASK
