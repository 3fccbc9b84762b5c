"""An issuer for tests, and everything a forger may do to its tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
AUDIENCE = "parley-api"
KID = "key-1"

Json = dict[str, Any]


@cache
def rsa_key(name: str, bits: int = 2048) -> RSAPrivateKey:
    """One per name and run: making them takes long."""
    return generate_rsa_key(public_exponent=65_537, key_size=bits)


@cache
def ec_key() -> EllipticCurvePrivateKey:
    return generate_ec_key(SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encoded(value: Any) -> str:
    return b64(json.dumps(value).encode())


def jwk(key: RSAPrivateKey, kid: str = KID, **more: Any) -> Json:
    public: Json = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kty": "RSA", "n": public["n"], "e": public["e"], "kid": kid, "use": "sig", "alg": "RS256"} | more


def key_set(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def pem(key: RSAPrivateKey) -> bytes:
    """The public half, as a confused verifier would take it for a shared secret."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def good_header(**more: Any) -> Json:
    return {"alg": "RS256", "typ": "JWT", "kid": KID} | more


def good_claims(**more: Any) -> Json:
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ana",
        "tenant_id": "contoso",
        "roles": ["sales"],
        "iat": NOW - 60,
        "nbf": NOW - 60,
        "exp": NOW + 600,
    } | more


def without(values: Json, *names: str) -> Json:
    return {name: value for name, value in values.items() if name not in names}


def rs256(header: Any, claims: Any, key: RSAPrivateKey | None = None) -> str:
    """Signed as the issuer does, whatever header and claims are. Texts are taken as they stand."""
    return signed_parts(_part(header), _part(claims), key)


def signed_parts(header: str, claims: str, key: RSAPrivateKey | None = None) -> str:
    signature = (key or rsa_key("issuer")).sign(f"{header}.{claims}".encode(), PKCS1v15(), SHA256())
    return f"{header}.{claims}.{b64(signature)}"


def hs256(header: Json, claims: Json, secret: bytes) -> str:
    signing = f"{encoded(header)}.{encoded(claims)}"
    return f"{signing}.{b64(hmac.digest(secret, signing.encode(), hashlib.sha256))}"


def es256(header: Json, claims: Json) -> str:
    signing = f"{encoded(header)}.{encoded(claims)}"
    return f"{signing}.{b64(ec_key().sign(signing.encode(), ECDSA(SHA256())))}"


def ps256(header: Json, claims: Json) -> str:
    signing = f"{encoded(header)}.{encoded(claims)}"
    signature = rsa_key("issuer").sign(signing.encode(), PSS(MGF1(SHA256()), 32), SHA256())
    return f"{signing}.{b64(signature)}"


def rs384(header: Json, claims: Json) -> str:
    signing = f"{encoded(header)}.{encoded(claims)}"
    return f"{signing}.{b64(rsa_key('issuer').sign(signing.encode(), PKCS1v15(), SHA384()))}"


def _part(value: Any) -> str:
    return b64(value) if isinstance(value, bytes) else encoded(value)
