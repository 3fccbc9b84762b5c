"""The names of this machine for itself."""

from __future__ import annotations

from typing import Final

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
