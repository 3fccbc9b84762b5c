"""The keys that secrets are stored under, newest first.

    PARLEY_KEYS = newest, …, oldest  ─HKDF-SHA256, one per purpose─►  Fernet keys  ─►  sealed text in a record

What is sealed is sealed with the newest; what was sealed with an older one can still be opened, until it has been sealed
again and the old key is taken out of the list. What one purpose has sealed no other can open.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from serve_app.errors import ConfigError, Internal

PROVIDER_KEYS = "provider-keys"
"""The purpose of tenants' keys for model providers."""
MIN_KEY_CHARS = 32
MAX_KEYS = 16
_PAYLOAD: msgspec.json.Decoder[tuple[str, str]] = msgspec.json.Decoder(tuple[str, str])


class Sealer:
    """Seals for one purpose. ``place`` says where the text belongs: elsewhere it cannot be opened, so that nobody who can
    write records can give one tenant's secret to another.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._newest = Fernet(keys[0])

    def seal(self, text: str, place: str) -> str:
        return self._fernet.encrypt(msgspec.json.encode((place, text))).decode()

    def open(self, sealed: str, place: str) -> str:
        """Raises Internal where no key opens it, or it belongs elsewhere."""
        try:
            found, text = _PAYLOAD.decode(self._fernet.decrypt(sealed.encode()))
        except (InvalidToken, msgspec.DecodeError):
            raise Internal(
                "A stored secret cannot be opened: the key it was sealed with is not in PARLEY_KEYS."
            ) from None
        if found != place:
            raise Internal("A stored secret is not where it was sealed for.")
        return text

    def is_newest(self, sealed: str) -> bool:
        """Whether it was sealed with the newest key."""
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True

    def again(self, sealed: str) -> str:
        """The same, sealed with the newest key. Raises Internal where no key opens it."""
        try:
            return self._fernet.rotate(sealed.encode()).decode()
        except InvalidToken:
            raise Internal(
                "A stored secret cannot be opened: the key it was sealed with is not in PARLEY_KEYS."
            ) from None


class KeyRing:
    """The configured keys. No key is ever used as it is: each purpose has its own, derived from it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """From what ``PARLEY_KEYS`` says. Raises ConfigError, which does not repeat any of it."""
        keys = [part.strip() for part in text.split(",")]
        if any(len(key) < MIN_KEY_CHARS for key in keys) or len(keys) > MAX_KEYS:
            raise ConfigError(
                f"PARLEY_KEYS must be 1 to {MAX_KEYS} keys of at least {MIN_KEY_CHARS} characters each, the newest first and "
                "split by commas; `parley admin key make` makes one."
            )
        if len(set(keys)) != len(keys):
            raise ConfigError("PARLEY_KEYS names a key twice.")
        return cls([key.encode() for key in keys])

    def sealer(self, purpose: str) -> Sealer:
        return Sealer([_derived(key, purpose) for key in self._keys])


def provider_place(tenant_id: str, provider: str, origin: str) -> str:
    """Where a tenant's key for a model provider belongs: to be sent to nobody but ``origin``. No part but that has a slash."""
    return f"{tenant_id}/{provider}/{origin}"


def _derived(key: bytes, purpose: str) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"parley/1/{purpose}".encode()).derive(key)
    return base64.urlsafe_b64encode(derived)
