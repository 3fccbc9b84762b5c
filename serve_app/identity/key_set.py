"""A JSON Web Key Set (RFC 7517), read with suspicion: only RSA keys that may verify signatures, and of those the sound ones.

What is in a set and cannot be used is left out, since issuers put keys for other purposes there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm
from jwt.exceptions import PyJWTError
from msgspec import Struct

from serve_app.identity.strict_json import InvalidJson, read_object

MAX_SET_BYTES = 262_144
MAX_KEYS = 200
MAX_KID_CHARS = 256
MIN_KEY_BITS = 2_048
MAX_KEY_BITS = 8_192
"""Verifying takes longer with the square of it: a key is no place for somebody else's arithmetic."""


class UnusableKeys(Exception):
    """A text that is no key set, or one without any key that can verify our tokens."""


class VerificationKey(Struct, frozen=True):
    """A public key. ``issuer`` is set where the set says for whose tokens alone it is, as Entra ID's does; ``{tenantid}`` in it
    stands for any tenant.
    """

    public: RSAPublicKey
    issuer: str | None = None


def read_key_set(text: bytes) -> Mapping[str, VerificationKey]:
    """The usable keys by ``kid``; of two with the same, the first. Raises UnusableKeys."""
    if len(text) > MAX_SET_BYTES:
        raise UnusableKeys(f"The key set is larger than {MAX_SET_BYTES} bytes.")
    try:
        listed = read_object(text).get("keys")
    except InvalidJson as error:
        raise UnusableKeys(f"The key set cannot be read: {error}.") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise UnusableKeys(f"A key set has a list of at most {MAX_KEYS} keys.")
    keys: dict[str, VerificationKey] = {}
    for jwk in listed:
        if isinstance(jwk, dict) and (kid := _kid(jwk)) is not None and (key := _key(jwk)) is not None:
            keys.setdefault(kid, key)
    if not keys:
        raise UnusableKeys(f"The key set has no RSA key for signatures with a kid and at least {MIN_KEY_BITS} bits.")
    return keys


def _kid(jwk: dict[str, Any]) -> str | None:
    kid = jwk.get("kid")
    return kid if isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS else None


def _key(jwk: dict[str, Any]) -> VerificationKey | None:
    if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig" or jwk.get("alg", "RS256") != "RS256" or "d" in jwk:
        return None
    operations = jwk.get("key_ops", ["verify"])
    issuer = jwk.get("issuer")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(issuer, str | None):
        return None
    try:
        public = RSAAlgorithm.from_jwk({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(public, RSAPublicKey) or not MIN_KEY_BITS <= public.key_size <= MAX_KEY_BITS:
        return None
    return VerificationKey(public, issuer)
