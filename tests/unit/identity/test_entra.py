"""Tokens of Entra ID: which directory, which application, which kind of token."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.domain.identity import Identity
from serve_app.errors import Unauthenticated
from serve_app.identity.entra import EntraClaims, entra_keys_url
from serve_app.identity.jwks import FixedKeys
from serve_app.identity.key_set import read_key_set
from serve_app.identity.verifier import TokenVerifier
from tests.unit.identity.forge import NOW, good_header, jwk, key_set, rs256, rsa_key, without

AUTHORITY = "https://login.microsoftonline.com"
CLIENT = "6f1c2d4e-0000-4000-8000-00000000aaaa"
DIRECTORY = "11111111-2222-4333-8444-555555555555"
OTHER_DIRECTORY = "99999999-2222-4333-8444-555555555555"
SOMEBODY = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


def token(**more: Any) -> str:
    return rs256(good_header(), claims(**more))


def claims(**more: Any) -> dict[str, Any]:
    return {
        "ver": "2.0",
        "iss": f"{AUTHORITY}/{DIRECTORY}/v2.0",
        "aud": CLIENT,
        "tid": DIRECTORY,
        "oid": SOMEBODY,
        "sub": "pairwise, and of no use",
        "scp": "access_as_user",
        "name": "Ana",
        "preferred_username": "ana@contoso.example",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 3_600,
    } | more


def verifier(**of_key: Any) -> TokenVerifier:
    keys = FixedKeys(read_key_set(key_set(jwk(rsa_key("issuer"), **of_key))))
    return TokenVerifier(keys, EntraClaims(authority=AUTHORITY, client_id=CLIENT), leeway_s=30, clock=lambda: NOW)


async def test_somebody_is_known_by_directory_and_object() -> None:
    assert await verifier().verify(token(roles=["Sales"])) == Identity(
        issuer=f"{AUTHORITY}/{DIRECTORY}/v2.0",
        tenant=DIRECTORY,
        subject=SOMEBODY,
        expires_at=NOW + 3_630,
        roles=("sales",),
        name="Ana",
    )


async def test_an_application_has_roles_instead_of_scopes() -> None:
    identity = await verifier().verify(rs256(good_header(), without(claims(roles=["batch"]), "scp")))
    assert identity.roles == ("batch",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ver": "1.0"},
        {"ver": 2.0},
        {"ver": None},
        {"iss": f"https://sts.windows.net/{DIRECTORY}/"},
        {"iss": f"{AUTHORITY}/{OTHER_DIRECTORY}/v2.0"},
        {"iss": f"{AUTHORITY}/common/v2.0"},
        {"iss": f"{AUTHORITY}/{{tenantid}}/v2.0"},
        {"iss": f"{AUTHORITY}/{DIRECTORY}/v2.0/"},
        {"iss": f"http://login.microsoftonline.com/{DIRECTORY}/v2.0"},
        {"tid": OTHER_DIRECTORY},
        {"tid": DIRECTORY.replace("-", "")},
        {"tid": "common", "iss": f"{AUTHORITY}/common/v2.0"},
        {"tid": "evil.example/x", "iss": f"{AUTHORITY}/evil.example/x/v2.0"},
        {
            "tid": "AAAAAAAA-2222-4333-8444-555555555555",
            "iss": f"{AUTHORITY}/AAAAAAAA-2222-4333-8444-555555555555/v2.0",
        },
        {"tid": [DIRECTORY]},
        {"tid": None},
        {"aud": "00000003-0000-0000-c000-000000000000"},
        {"aud": f"api://{CLIENT}"},
        {"oid": None},
        {"oid": "ana@contoso.example"},
        {"scp": ""},
        {"scp": " "},
        {"scp": ["access_as_user"]},
        {"scp": None, "roles": []},
        {"exp": NOW - 31},
        {"nbf": NOW + 31},
    ],
    ids=str,
)
async def test_a_token_for_another_place_or_purpose_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await verifier().verify(token(**wrong))


@pytest.mark.parametrize("missing", ["ver", "iss", "aud", "tid", "oid", "scp", "exp"])
async def test_a_token_that_leaves_something_out_is_refused(missing: str) -> None:
    with pytest.raises(Unauthenticated):
        await verifier().verify(rs256(good_header(), without(claims(), missing)))


async def test_a_key_of_one_directory_signs_for_no_other() -> None:
    """The common key set has keys that say whose they are."""
    for owner in ("{tenantid}", DIRECTORY):
        assert (await verifier(issuer=f"{AUTHORITY}/{owner}/v2.0").verify(token())).subject == SOMEBODY
    with pytest.raises(Unauthenticated):
        await verifier(issuer=f"{AUTHORITY}/{OTHER_DIRECTORY}/v2.0").verify(token())


@pytest.mark.parametrize(
    ("more", "email"),
    [
        ({}, ""),
        ({"email": "ceo@fabrikam.example"}, ""),
        ({"email": "ceo@fabrikam.example", "xms_edov": False}, ""),
        ({"email": "ceo@fabrikam.example", "xms_edov": "0"}, ""),
        ({"email": "ana@contoso.example", "xms_edov": True}, "ana@contoso.example"),
        ({"email": "ana@contoso.example", "xms_edov": 1}, "ana@contoso.example"),
        ({"email": "ana@contoso.example", "xms_edov": "1"}, "ana@contoso.example"),
    ],
)
async def test_an_address_counts_only_where_its_domain_is_the_directorys(more: dict[str, Any], email: str) -> None:
    """In a directory of one's own one can write any address beside a user."""
    assert (await verifier().verify(token(**more))).email == email


def test_a_national_cloud_has_its_own_keys() -> None:
    assert entra_keys_url("https://login.microsoftonline.us") == (
        "https://login.microsoftonline.us/common/discovery/v2.0/keys"
    )
