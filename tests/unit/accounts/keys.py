"""Signing keys for tests, made once a run."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.unit.identity.forge import rsa_key


@cache
def signing_pem(name: str, bits: int = 2048) -> str:
    return rsa_key(f"signing {name}", bits).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def locked_pem() -> str:
    encryption = BestAvailableEncryption(b"password")
    return rsa_key("signing one", 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def curve_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
