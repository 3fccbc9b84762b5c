"""Which authenticator the settings choose, and files of keys that cannot be used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.identity import Identity, Principal
from serve_app.errors import ConfigError, Unauthenticated
from serve_app.identity.connect import check_keys_file, connect
from serve_app.settings import AuthSettings, Settings
from tests.unit.identity.forge import AUDIENCE, ISSUER, good_claims, good_header, jwk, key_set, rs256, rsa_key


class Everybody:
    async def resolve(self, identity: Identity) -> Principal:
        return Principal(tenant_id=identity.tenant, user_id=identity.subject)


def of_file(path: Path, **more: Any) -> Settings:
    values = {"mode": "jwt", "issuer": ISSUER, "audience": AUDIENCE, "jwks": str(path)} | more
    return Settings(auth=AuthSettings(**values))


def token(**more: Any) -> str:
    now = time.time()
    return rs256(good_header(), good_claims(iat=now, nbf=now, exp=now + 60, **more))


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(rsa_key("issuer"))))
    return path


async def test_development_reads_headers_and_no_tokens() -> None:
    grant = await connect(Settings(), Everybody()).authenticate({"x-dev-user": "ana"}, {})
    assert (grant.principal.user_id, grant.identity, grant.expires_at) == ("ana", None, None)


async def test_tokens_are_verified_with_a_file_of_keys(keys_file: Path) -> None:
    grant = await connect(of_file(keys_file), Everybody()).with_token(token())
    assert (grant.principal.tenant_id, grant.principal.user_id) == ("contoso", "ana")


async def test_an_operator_names_the_claims(keys_file: Path) -> None:
    settings = of_file(keys_file, subject_claim="user_id", tenant_claim="org", roles_claim="role")
    asked = connect(settings, Everybody())
    grant = await asked.with_token(token(user_id="u7", org="fabrikam", role="Sales"))
    assert grant.identity is not None
    assert (grant.identity.tenant, grant.identity.subject, grant.identity.roles) == ("fabrikam", "u7", ("sales",))
    with pytest.raises(Unauthenticated):
        await asked.with_token(token())


@pytest.mark.parametrize(
    ("owner", "believed"),
    [
        ("https://issuer.example/{tenantid}/v2.0", True),
        ("https://issuer.example/contoso/v2.0", True),
        ("https://issuer.example/fabrikam/v2.0", False),
        ("https://issuer.example/{tenantid}", False),
        ("https://issuer.example/a/{tenantid}/v2.0", False),
        ("", False),
    ],
)
async def test_a_key_that_says_whose_it_is_signs_for_nobody_else(tmp_path: Path, owner: str, believed: bool) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(rsa_key("issuer"), issuer=owner)))
    issuer = "https://issuer.example/contoso/v2.0"
    asked = connect(of_file(path, issuer=issuer), Everybody())
    if believed:
        assert (await asked.with_token(token(iss=issuer))).principal.user_id == "ana"
    else:
        with pytest.raises(Unauthenticated):
            await asked.with_token(token(iss=issuer))


async def test_entra_takes_no_token_of_the_generic_kind(keys_file: Path) -> None:
    settings = Settings(auth=AuthSettings(mode="entra", client_id=AUDIENCE, jwks=str(keys_file)))
    with pytest.raises(Unauthenticated):
        await connect(settings, Everybody()).with_token(token())


async def test_our_own_tokens_are_verified_with_our_own_keys() -> None:
    asked = connect(Settings(auth=AuthSettings(mode="accounts")), Everybody(), key_set(jwk(rsa_key("issuer"))))
    grant = await asked.with_token(token(iss="parley", aud="parley", roles=["admin"]))
    assert grant.identity is not None
    assert grant.identity.roles == (), "roles of local accounts are in their user's record"
    with pytest.raises(Unauthenticated):
        await asked.with_token(token())


def test_a_file_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Setting PARLEY_AUTH__JWKS: the file .*none.json cannot be read: No such"):
        connect(of_file(tmp_path / "none.json"), Everybody())


def test_a_file_without_keys_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"^Setting PARLEY_AUTH__JWKS: the file .*keys.json cannot be used\. "):
        check_keys_file(of_file(path))


def test_an_address_is_not_asked_at_the_start() -> None:
    check_keys_file(Settings(auth=AuthSettings(mode="entra", client_id="x")))
    connect(Settings(auth=AuthSettings(mode="entra", client_id="x")), Everybody())
