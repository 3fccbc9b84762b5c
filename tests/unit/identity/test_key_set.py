"""Which keys of a set are used, and what is no set at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from serve_app.identity.key_set import MAX_KEYS, MAX_SET_BYTES, UnusableKeys, read_key_set
from tests.unit.identity.forge import ec_key, jwk, key_set, rsa_key, without

GOOD = jwk(rsa_key("issuer"))


def test_keys_are_found_by_name_and_the_first_of_a_name_stays() -> None:
    keys = read_key_set(key_set(GOOD, jwk(rsa_key("attacker")), jwk(rsa_key("issuer 2"), "key-2")))
    assert list(keys) == ["key-1", "key-2"]
    assert keys["key-1"].public == rsa_key("issuer").public_key()


@pytest.mark.parametrize("optional", ["use", "alg"])
def test_a_key_need_not_say_what_it_is_for(optional: str) -> None:
    assert isinstance(read_key_set(key_set(without(GOOD, optional)))["key-1"].public, RSAPublicKey)


UNUSABLE: dict[str, Any] = {
    "no kid": without(GOOD, "kid"),
    "an empty kid": GOOD | {"kid": ""},
    "a kid that is a number": GOOD | {"kid": 1},
    "a kid that is too long": GOOD | {"kid": "k" * 257},
    "for encryption": GOOD | {"use": "enc"},
    "for signing only": GOOD | {"key_ops": ["sign"]},
    "operations that are no list": GOOD | {"key_ops": "verify"},
    "another algorithm": GOOD | {"alg": "RS512"},
    "a secret": {"kty": "oct", "k": "AAAA", "kid": "key-1"},
    "an elliptic curve": ECAlgorithm.to_jwk(ec_key().public_key(), as_dict=True) | {"kid": "key-1"},
    "a private key": RSAAlgorithm.to_jwk(rsa_key("issuer"), as_dict=True) | {"kid": "key-1"},
    "too short": jwk(rsa_key("short", 1024)),
    "too long to be verified in time": GOOD | {"n": "_" * 2_000},
    "no modulus": without(GOOD, "n"),
    "a modulus that is a number": GOOD | {"n": 12},
    "a modulus that is no base64": GOOD | {"n": "!!"},
    "an exponent of one": GOOD | {"e": "AQ"},
    "an issuer that is a list": GOOD | {"issuer": ["a"]},
    "no object": "key-1",
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_key_that_cannot_verify_our_tokens_is_left_out(unusable: Any) -> None:
    other = jwk(rsa_key("issuer 2"), "key-2")
    assert list(read_key_set(key_set(unusable, other))) == ["key-2"]
    with pytest.raises(UnusableKeys, match="has no RSA key"):
        read_key_set(key_set(unusable))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b'{"keys": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"keys": [GOOD] * (MAX_KEYS + 1)}).encode(),
        json.dumps({"keys": [GOOD], "padding": "x" * MAX_SET_BYTES}).encode(),
    ],
    ids=range(13),
)
def test_what_is_no_key_set_is_refused(text: bytes) -> None:
    with pytest.raises(UnusableKeys):
        read_key_set(text)
