"""The keys that sign the tokens of local accounts: an operator's, or one made once below the data folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import RSAAlgorithm

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings

KEY_BITS = 2_048
MAX_SIGNING_KEYS = 8
KEY_FILE = Path("keys") / "signing.pem"
"""Below the data folder."""

_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


class SigningKeys:
    """RSA keys, newest first: the first signs, and all verify, so that a change of keys ends no session."""

    def __init__(self, keys: Sequence[RSAPrivateKey]) -> None:
        self._keys = tuple(keys)
        self._published = [_public(key) for key in self._keys]

    def sign(self, claims: Mapping[str, Any]) -> str:
        """An access token (RFC 9068) with these claims."""
        headers = {"kid": self._published[0]["kid"], "typ": "at+jwt"}
        return jwt.encode(dict(claims), self._keys[0], algorithm="RS256", headers=headers)

    def key_set(self) -> bytes:
        """The public halves, as a JSON Web Key Set."""
        return json.dumps({"keys": self._published}).encode()

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """For each key 32 bytes that are good for ``purpose`` alone, in the same order."""
        return tuple(
            HKDF(algorithm=SHA256(), length=32, salt=None, info=f"parley {purpose}".encode()).derive(
                key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            )
            for key in self._keys
        )


def open_signing_keys(settings: Settings, given: Secrets) -> SigningKeys:
    """The operator's keys, or those of this machine, made now if there are none. Raises ConfigError."""
    keys = find_signing_keys(settings, given)
    if keys is None:
        path = _key_file(settings)
        try:
            _make(path)
        except OSError as error:
            raise ConfigError(f"The signing key {path} cannot be made: {error.strerror or error}.") from error
        keys = find_signing_keys(settings, given)
    if keys is None:
        raise ConfigError("The signing key was removed while it was made; start again.")
    return keys


def find_signing_keys(settings: Settings, given: Secrets) -> SigningKeys | None:
    """The same, or None where they are to be made yet. Raises ConfigError."""
    if given.parley_signing_key is not None:
        return read_signing_keys(given.parley_signing_key.get_secret_value(), "Setting PARLEY_SIGNING_KEY:")
    if settings.several_machines:
        raise ConfigError(
            "Setting PARLEY_SIGNING_KEY: on several machines local accounts need one key for all; make one with"
            " `openssl genrsa 2048`."
        )
    path = _key_file(settings)
    try:
        pem = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The signing key {path} cannot be read: {error}.") from error
    return read_signing_keys(pem, f"The file {path}")


def _key_file(settings: Settings) -> Path:
    return settings.path(settings.data_dir) / KEY_FILE


def read_signing_keys(pem: str, name: str) -> SigningKeys:
    """Raises ConfigError that says what ``name`` has to be, and nothing of what it is."""
    blocks = _PEM.findall(pem.replace("\\n", "\n"))  # as some tools write a variable of several lines
    keys = []
    for block in blocks[:MAX_SIGNING_KEYS]:
        try:
            key = load_pem_private_key(block.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, RSAPrivateKey) and key.key_size >= KEY_BITS:
            keys.append(key)
    if not keys or len(keys) != len(blocks):
        raise ConfigError(
            f"{name} must hold 1 to {MAX_SIGNING_KEYS} RSA private keys of at least {KEY_BITS} bits in PEM, without"
            " a password."
        )
    return SigningKeys(keys)


def _make(path: Path) -> None:
    """Replicas that start at the same time end up with one key: the file appears whole, and the first stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = generate_private_key(public_exponent=65_537, key_size=KEY_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _public(key: RSAPrivateKey) -> dict[str, Any]:
    jwk: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    thumbprint = hashlib.sha256(
        json.dumps({name: jwk[name] for name in ("e", "kty", "n")}, separators=(",", ":")).encode()
    ).digest()  # RFC 7638
    kid = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": jwk["n"], "e": jwk["e"]}
