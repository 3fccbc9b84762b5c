"""From a request to a grant: what counts as credentials, and what access has to say afterwards."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from serve_app.domain.identity import Identity, Principal
from serve_app.errors import NotPermitted, Unauthenticated
from serve_app.identity.port import Grant
from serve_app.identity.tokens import TokenAuthenticator

NOW = 1_000.0
ANA = Identity(issuer="i", tenant="contoso", subject="ana", expires_at=NOW + 60)


class OneToken:
    async def verify(self, token: str) -> Identity:
        if token != "good":
            raise Unauthenticated("The access token is not valid.")
        return ANA


class Directory:
    """Access whose answer a test changes."""

    def __init__(self) -> None:
        self.roles: tuple[str, ...] = ("sales",)
        self.removed = False
        self.asked: list[Identity] = []

    async def resolve(self, identity: Identity) -> Principal:
        self.asked.append(identity)
        if self.removed:
            raise NotPermitted("You have no access here.")
        return Principal(tenant_id=identity.tenant, user_id="u1", roles=self.roles)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def access() -> Directory:
    return Directory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(access: Directory, clock: Clock) -> TokenAuthenticator:
    return TokenAuthenticator(OneToken(), access, clock)


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("value", ["Bearer good", "bearer good", "BEARER  good", " Bearer good "])
async def test_a_bearer_token_is_somebody_until_it_expires(
    authenticator: TokenAuthenticator, name: str, value: str
) -> None:
    grant = await authenticator.authenticate({name: value}, {})
    principal = Principal(tenant_id="contoso", user_id="u1", roles=("sales",))
    assert grant == Grant(principal=principal, expires_at=NOW + 60, identity=ANA)


@pytest.mark.parametrize(
    "value",
    ["", "good", "Bearer", "Bearer ", "Bearer bad", "Basic good", "Bearer good good", "Bearer,good", "Token good"],
)
async def test_anything_else_is_nobody(authenticator: TokenAuthenticator, access: Directory, value: str) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate({"authorization": value}, {})
    assert access.asked == []


async def test_nothing_is_nobody(authenticator: TokenAuthenticator) -> None:
    with pytest.raises(Unauthenticated, match="missing"):
        await authenticator.authenticate({}, {})


async def test_two_tokens_in_one_request_are_refused(authenticator: TokenAuthenticator) -> None:
    """Else a proxy in front may have looked at the other one."""
    headers = Headers(raw=[(b"authorization", b"Bearer good"), (b"authorization", b"Bearer other")])
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(headers, {})


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"x-dev-user": "root", "x-dev-roles": "admin", "x-dev-tenant": "contoso"}, {}),
        ({}, {"x-dev-user": "root"}),
        ({}, {"access_token": "good"}),
        ({}, {"authorization": "Bearer good"}),
        ({"cookie": "authorization=Bearer good"}, {}),
        ({"proxy-authorization": "Bearer good"}, {}),
    ],
)
async def test_what_only_development_reads_and_tokens_in_addresses_are_nobody(
    authenticator: TokenAuthenticator, headers: dict[str, str], query: dict[str, str]
) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(headers, query)


async def test_development_headers_change_nothing_beside_a_token(authenticator: TokenAuthenticator) -> None:
    headers = {"authorization": "Bearer good", "x-dev-user": "root", "x-dev-roles": "admin"}
    grant = await authenticator.authenticate(headers, {"x-dev-tenant": "fabrikam"})
    assert grant.principal == Principal(tenant_id="contoso", user_id="u1", roles=("sales",))


async def test_good_credentials_without_access_are_another_refusal(
    authenticator: TokenAuthenticator, access: Directory
) -> None:
    access.removed = True
    with pytest.raises(NotPermitted):
        await authenticator.with_token("good")


async def test_a_grant_follows_its_user(authenticator: TokenAuthenticator, access: Directory) -> None:
    grant = await authenticator.with_token("good")
    access.roles = ("hr",)
    assert (await authenticator.refresh(grant)).principal.roles == ("hr",)
    access.removed = True
    with pytest.raises(NotPermitted):
        await authenticator.refresh(grant)


async def test_a_grant_ends_with_its_token(authenticator: TokenAuthenticator, clock: Clock) -> None:
    grant = await authenticator.with_token("good")
    clock.now = ANA.expires_at - 0.5
    assert await authenticator.refresh(grant) == grant
    clock.now = ANA.expires_at
    with pytest.raises(Unauthenticated, match="expired"):
        await authenticator.refresh(grant)


async def test_a_grant_of_another_mode_is_no_grant(authenticator: TokenAuthenticator) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.refresh(Grant(principal=Principal(tenant_id="contoso", user_id="root")))
