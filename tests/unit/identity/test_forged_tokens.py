"""Tokens that nobody must believe, one by one, against the verifier and the keys that production uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from serve_app.domain.identity import Identity
from serve_app.errors import Unauthenticated
from serve_app.identity.claims import IssuerClaims
from serve_app.identity.jwks import FixedKeys
from serve_app.identity.key_set import read_key_set
from serve_app.identity.verifier import MAX_TOKEN_CHARS, TokenVerifier
from tests.unit.identity.forge import (
    AUDIENCE,
    ISSUER,
    KID,
    NOW,
    b64,
    encoded,
    es256,
    good_claims,
    good_header,
    hs256,
    jwk,
    key_set,
    pem,
    ps256,
    rs256,
    rs384,
    rsa_key,
    signed_parts,
    without,
)

LEEWAY_S = 30.0


def verifier() -> TokenVerifier:
    keys = FixedKeys(read_key_set(key_set(jwk(rsa_key("issuer")), jwk(rsa_key("issuer 2"), "key-2"))))
    reader = IssuerClaims(
        issuer=ISSUER, audience=AUDIENCE, subject_claim="sub", tenant_claim="tenant_id", roles_claim="roles"
    )
    return TokenVerifier(keys, reader, leeway_s=LEEWAY_S, clock=lambda: NOW)


def header(**more: Any) -> str:
    return rs256(good_header(**more), good_claims())


def claims(**more: Any) -> str:
    return rs256(good_header(), good_claims(**more))


def claimless(*names: str) -> str:
    return rs256(good_header(), without(good_claims(), *names))


def altered(**more: Any) -> str:
    """Claims changed after signing."""
    head, _, signature = rs256(good_header(), good_claims()).split(".")
    return f"{head}.{encoded(good_claims(**more))}.{signature}"


def parts() -> list[str]:
    return rs256(good_header(), good_claims()).split(".")


def flipped() -> str:
    head, body, signature = parts()
    return f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def stretched() -> str:
    """Another last character, whose extra bits a careless decoder drops: a second token with the same meaning."""
    head, body, signature = parts()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return f"{head}.{body}.{signature[:-1]}{alphabet[alphabet.index(signature[-1]) ^ 1]}"


ATTACKER = rsa_key("attacker")
HEADER_JWK = without(jwk(ATTACKER), "kid")
DUPLICATE_SUB = json.dumps(good_claims()).encode()[:-1] + b', "sub": "root"}'
DUPLICATE_ALG = b'{"alg": "none", "kid": "key-1", "alg": "RS256"}'
NESTED_DUPLICATE = json.dumps(good_claims()).encode()[:-1] + b', "act": {"sub": "a", "sub": "b"}}'

FORGED: dict[str, Callable[[], str]] = {
    # -- no signature, or another kind of it
    "alg none without signature": lambda: f"{encoded(good_header(alg='none'))}.{encoded(good_claims())}.",
    "alg None in capitals": lambda: f"{encoded(good_header(alg='None'))}.{encoded(good_claims())}.AA",
    "alg none with the good signature": lambda: f"{encoded(good_header(alg='none'))}.{parts()[1]}.{parts()[2]}",
    "alg missing": lambda: rs256(without(good_header(), "alg"), good_claims()),
    "alg null": lambda: header(alg=None),
    "alg a list": lambda: header(alg=["RS256"]),
    "alg in lower case": lambda: header(alg="rs256"),
    "HS256 with the public key in PEM": lambda: hs256(good_header(alg="HS256"), good_claims(), pem(rsa_key("issuer"))),
    "HS256 with the key set": lambda: hs256(good_header(alg="HS256"), good_claims(), key_set(jwk(rsa_key("issuer")))),
    "HS256 with an empty secret": lambda: hs256(good_header(alg="HS256"), good_claims(), b""),
    "RS256 said, HS256 made": lambda: hs256(good_header(), good_claims(), pem(rsa_key("issuer"))),
    "ES256": lambda: es256(good_header(alg="ES256"), good_claims()),
    "PS256 with the issuer's key": lambda: ps256(good_header(alg="PS256"), good_claims()),
    "RS384 with the issuer's key": lambda: rs384(good_header(alg="RS384"), good_claims()),
    "RS256 said, RS384 made": lambda: rs384(good_header(), good_claims()),
    "empty signature": lambda: f"{parts()[0]}.{parts()[1]}.",
    "signature of zero bytes": lambda: f"{parts()[0]}.{parts()[1]}.{b64(bytes(256))}",
    "truncated signature": lambda: f"{parts()[0]}.{parts()[1]}.{parts()[2][:-8]}",
    "one character of the signature changed": flipped,
    "the signature written another way": stretched,
    # -- another key
    "a stranger's key under the issuer's kid": lambda: rs256(good_header(), good_claims(), ATTACKER),
    "the issuer's other key under this kid": lambda: rs256(good_header(), good_claims(), rsa_key("issuer 2")),
    "kid missing": lambda: rs256(without(good_header(), "kid"), good_claims()),
    "kid null": lambda: header(kid=None),
    "kid a number": lambda: header(kid=1),
    "kid a list": lambda: header(kid=[KID]),
    "kid empty": lambda: header(kid=""),
    "kid unknown": lambda: rs256(good_header(kid="key-9"), good_claims(), ATTACKER),
    "kid a path": lambda: rs256(good_header(kid="../../../../dev/null"), good_claims(), ATTACKER),
    "kid an address": lambda: rs256(good_header(kid="https://evil.example/jwks"), good_claims(), ATTACKER),
    "kid with SQL": lambda: rs256(good_header(kid="x' UNION SELECT 'key-1"), good_claims(), ATTACKER),
    "kid with a zero byte": lambda: header(kid=f"{KID}\0"),
    "kid with a line break": lambda: header(kid=f"{KID}\n"),
    "kid of 10000 characters": lambda: header(kid="k" * 10_000),
    # -- keys and meanings that the token brings itself
    "jwk in the header, signed by it": lambda: rs256(good_header(jwk=HEADER_JWK), good_claims(), ATTACKER),
    "jwk in the header of a good token": lambda: header(jwk=HEADER_JWK),
    "jku in the header": lambda: rs256(good_header(jku="https://evil.example/jwks"), good_claims(), ATTACKER),
    "jku in the header of a good token": lambda: header(jku="https://evil.example/jwks"),
    "x5u in the header": lambda: header(x5u="https://evil.example/cert.pem"),
    "x5c in the header": lambda: header(x5c=["MIIB"]),
    "crit with an unknown extension": lambda: header(crit=["exp2"], exp2=1),
    "crit with a known claim": lambda: header(crit=["exp"], exp=NOW + 1),
    "crit empty": lambda: header(crit=[]),
    "crit that is no list": lambda: header(crit="b64"),
    "b64 false, said to be critical": lambda: header(b64=False, crit=["b64"]),
    "b64 false, not said": lambda: header(b64=False),
    "b64 false with a payload as it stands": lambda: signed_parts(
        encoded(good_header(b64=False, crit=["b64"])), json.dumps(good_claims())
    ),
    "compressed": lambda: header(zip="DEF"),
    "encrypted": lambda: header(enc="A256GCM"),
    "another token inside, said": lambda: header(cty="JWT"),
    "another token inside, not said": lambda: rs256(good_header(), rs256(good_header(), good_claims()).encode()),
    "typ of an ID assertion": lambda: header(typ="secevent+jwt"),
    "typ a number": lambda: header(typ=1),
    # -- no token at all
    "empty": lambda: "",
    "two parts": lambda: ".".join(parts()[:2]),
    "four parts": lambda: ".".join([*parts(), "AA"]),
    "five parts, as if encrypted": lambda: ".".join([*parts(), "AA", "AA"]),
    "only dots": lambda: "..",
    "padded": lambda: f"{parts()[0]}==.{parts()[1]}.{parts()[2]}",
    "plain base64": lambda: ".".join(parts()) + "+/",
    "a line break at the end": lambda: ".".join(parts()) + "\n",
    "spaces inside": lambda: " .".join(parts()),
    "not ASCII": lambda: f"{parts()[0]}.{parts()[1]}é.{parts()[2]}",
    "larger than any token": lambda: claims(padding="x" * MAX_TOKEN_CHARS),
    "a length that base64 cannot have": lambda: f"{parts()[0]}A.{parts()[1]}.{parts()[2]}",
    "header no JSON": lambda: rs256(b"alg=RS256", good_claims()),
    "header a list": lambda: rs256([good_header()], good_claims()),
    "header not UTF-8": lambda: rs256(b'{"alg":"RS256","kid":"\xff"}', good_claims()),
    "header with alg twice": lambda: rs256(DUPLICATE_ALG, good_claims()),
    "header nested too deep": lambda: signed_parts(b64(b'{"a":' * 1_200 + b"1" + b"}" * 1_200), parts()[1]),
    # -- claims that are no claims
    "claims no JSON": lambda: rs256(good_header(), b"sub=ana"),
    "claims a list": lambda: rs256(good_header(), [good_claims()]),
    "claims null": lambda: rs256(good_header(), None),
    "claims not UTF-8": lambda: rs256(good_header(), b'{"sub":"\xff"}'),
    "claims with sub twice": lambda: rs256(good_header(), DUPLICATE_SUB),
    "claims with a name twice further down": lambda: rs256(good_header(), NESTED_DUPLICATE),
    "claims changed after signing": lambda: altered(sub="root"),
    # -- issuer and audience
    "iss missing": lambda: claimless("iss"),
    "iss another": lambda: claims(iss="https://evil.example"),
    "iss with a slash more": lambda: claims(iss=f"{ISSUER}/"),
    "iss in capitals": lambda: claims(iss=ISSUER.upper()),
    "iss a list": lambda: claims(iss=[ISSUER]),
    "iss null": lambda: claims(iss=None),
    "aud missing": lambda: claimless("aud"),
    "aud another": lambda: claims(aud="other-api"),
    "aud that ours is part of": lambda: claims(aud=f"{AUDIENCE}-2"),
    "aud part of ours": lambda: claims(aud=AUDIENCE[:-1]),
    "aud an empty list": lambda: claims(aud=[]),
    "aud a list of others": lambda: claims(aud=["a", "b"]),
    "aud a list with a number": lambda: claims(aud=[AUDIENCE, 1]),
    "aud an object": lambda: claims(aud={AUDIENCE: True}),
    "aud true": lambda: claims(aud=True),
    "aud null": lambda: claims(aud=None),
    "aud a list without end": lambda: claims(aud=[AUDIENCE] * 33),
    # -- times
    "exp missing": lambda: claimless("exp"),
    "exp past": lambda: claims(exp=NOW - LEEWAY_S),
    "exp a text": lambda: claims(exp=str(int(NOW) + 600)),
    "exp true": lambda: claims(exp=True),
    "exp null": lambda: claims(exp=None),
    "exp a list": lambda: claims(exp=[NOW + 600]),
    "exp negative": lambda: claims(exp=-1),
    "exp infinite": lambda: rs256(good_header(), json.dumps(good_claims(exp=0)).replace("0}", "1e999}").encode()),
    "exp not a number": lambda: claims(exp=float("nan")),
    "exp larger than a float": lambda: claims(exp=10**400),
    "exp with too many digits": lambda: rs256(
        good_header(), json.dumps(good_claims(exp=0)).replace("0}", "9" * 5_000 + "}").encode()
    ),
    "nbf in the future": lambda: claims(nbf=NOW + LEEWAY_S + 1),
    "nbf a text": lambda: claims(nbf="0"),
    "nbf null": lambda: claims(nbf=None),
    "iat in the future": lambda: claims(iat=NOW + LEEWAY_S + 1),
    "iat a text": lambda: claims(iat="now"),
    # -- whom it names
    "sub missing": lambda: claimless("sub"),
    "sub empty": lambda: claims(sub=""),
    "sub a number": lambda: claims(sub=7),
    "sub a list": lambda: claims(sub=["ana"]),
    "sub null": lambda: claims(sub=None),
    "sub with a zero byte": lambda: claims(sub="ana\0"),
    "sub with a line break": lambda: claims(sub="ana\nroot"),
    "sub with half a character": lambda: claims(sub="ana\ud800"),
    "sub of 300 characters": lambda: claims(sub="a" * 300),
    "tenant missing": lambda: claimless("tenant_id"),
    "tenant empty": lambda: claims(tenant_id=""),
    "tenant a number": lambda: claims(tenant_id=1),
    "tenant a list": lambda: claims(tenant_id=["contoso", "fabrikam"]),
    "tenant an object": lambda: claims(tenant_id={"$ne": ""}),
    "roles an object": lambda: claims(roles={"admin": True}),
    "roles with a number": lambda: claims(roles=["sales", 1]),
    "roles without end": lambda: claims(roles=[f"r{n}" for n in range(65)]),
}


@pytest.mark.parametrize("forged", list(FORGED.values()), ids=list(FORGED))
async def test_a_forged_token_names_nobody(forged: Callable[[], str]) -> None:
    token = forged()
    with pytest.raises(Unauthenticated) as refused:
        await verifier().verify(token)
    assert refused.value.message in {"The access token is not valid.", "The access token has expired."}


async def test_each_forgery_differs_from_a_token_that_is_believed() -> None:
    """Else the table would prove nothing."""
    identity = await verifier().verify(rs256(good_header(), good_claims()))
    assert identity == Identity(
        issuer=ISSUER,
        tenant="contoso",
        subject="ana",
        expires_at=NOW + 600 + LEEWAY_S,
        roles=("sales",),
    )
    tokens = [forge() for forge in FORGED.values()]
    assert len(set(tokens)) == len(tokens)
    assert len(tokens) >= 100


GOOD: dict[str, Callable[[], str]] = {
    "the other key": lambda: rs256(good_header(kid="key-2"), good_claims(), rsa_key("issuer 2")),
    "typ of an access token": lambda: header(typ="at+jwt"),
    "typ written as a media type": lambda: header(typ="application/at+jwt"),
    "no typ": lambda: rs256(without(good_header(), "typ"), good_claims()),
    "a thumbprint": lambda: header(x5t="abc"),
    "several audiences": lambda: claims(aud=["other", AUDIENCE]),
    "whole seconds": lambda: claims(exp=int(NOW) + 600, iat=int(NOW)),
    "a clock behind ours": lambda: claims(exp=NOW - LEEWAY_S + 1),
    "a clock before ours": lambda: claims(nbf=NOW + LEEWAY_S, iat=NOW + LEEWAY_S),
    "neither iat nor nbf": lambda: claimless("iat", "nbf"),
    "claims that we do not know": lambda: claims(scope="a b", act={"sub": "x"}),
}


@pytest.mark.parametrize("good", list(GOOD.values()), ids=list(GOOD))
async def test_what_issuers_differ_in_is_believed(good: Callable[[], str]) -> None:
    assert (await verifier().verify(good())).subject == "ana"


@pytest.mark.parametrize(
    ("given", "granted"),
    [
        (["Sales", "sales", " HR "], ("sales", "hr")),
        ("admin", ("admin",)),
        ([], ()),
        (["platform-admin", "Platform-Admin"], ()),
        (["a b", "x" * 65, "", "sales"], ("sales",)),
    ],
)
async def test_roles_of_a_token_are_plain_and_never_the_platforms(given: object, granted: tuple[str, ...]) -> None:
    assert (await verifier().verify(claims(roles=given))).roles == granted


async def test_a_token_without_roles_grants_none() -> None:
    assert (await verifier().verify(claimless("roles"))).roles == ()


@pytest.mark.parametrize(("verified", "email"), [(True, "ana@contoso.example"), (False, ""), ("true", ""), (None, "")])
async def test_an_address_counts_only_where_the_issuer_has_verified_it(verified: object, email: str) -> None:
    identity = await verifier().verify(claims(email="ana@contoso.example", email_verified=verified))
    assert identity.email == email


async def test_only_an_expired_token_is_told_what_is_wrong() -> None:
    with pytest.raises(Unauthenticated, match="has expired"):
        await verifier().verify(claims(exp=NOW - 3_600))
    with pytest.raises(Unauthenticated, match="is not valid"):
        await verifier().verify(rs256(good_header(), good_claims(exp=NOW - 3_600), ATTACKER))
