"""The key ring that the environment names."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.keys.ring import KeyRing


def open_keys(secrets: Secrets) -> KeyRing | None:
    """None without ``PARLEY_KEYS``: then nothing can be stored that has to be encrypted. Raises ConfigError."""
    return None if secrets.parley_keys is None else KeyRing.parse(secrets.parley_keys.get_secret_value())
