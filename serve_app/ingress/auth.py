"""``/api/auth``: how one logs in, tickets for WebSockets, and, where Parley keeps accounts itself, logging in and out.

The refresh token of a browser is a cookie that no script reads, no other site sends, and only these addresses get. Every POST
with an origin has been checked by ``edge`` before it comes here.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from serve_app.accounts.port import Accounts, Tokens
from serve_app.errors import Unauthenticated
from serve_app.identity.port import Grant
from serve_app.ingress.addresses import client_address
from serve_app.ingress.dependencies import Services, problems
from serve_app.ingress.login_limit import LoginLimit
from serve_app.ingress.services import IngressServices
from serve_app.wire.auth import LoginBody, PasswordBody, RefreshBody, ResetBody, SignInView, TicketView, TokensView
from serve_app.wire.problems import no_such_route

PATH = "/api/auth"
COOKIE = "parley_refresh"
SECURE_COOKIE = f"__Secure-{COOKIE}"
"""Browsers take a cookie of such a name over TLS only."""
KEYS_MAX_AGE_S = 300

router = APIRouter(prefix=PATH, tags=["authentication"])


async def grant_of(request: Request) -> Grant:
    """The caller's grant, whose request is counted. Raises Unauthenticated, NotPermitted, QuotaExceeded."""
    services: IngressServices = request.app.state.services
    grant = await services.authenticator.authenticate(request.headers, {})
    await services.requests.spend(grant.principal)
    return grant


async def accounts_of(request: Request) -> Accounts:
    """Raises NotFound where others know who people are."""
    services: IngressServices = request.app.state.services
    if services.accounts is None:
        raise no_such_route()
    return services.accounts


LocalAccounts = Annotated[Accounts, Depends(accounts_of)]


async def may_try(request: Request, accounts: LocalAccounts) -> Accounts:
    """The accounts, for one more try at a password. Raises NotFound, QuotaExceeded."""
    services: IngressServices = request.app.state.services
    logins: LoginLimit = request.app.state.logins
    logins.spend(client_address(request.scope, request.headers, services.settings.limits.forwarded_hops))
    return accounts


Granted = Annotated[Grant, Depends(grant_of)]
OptionalRefresh = Annotated[RefreshBody | None, Body(examples=[{"refresh_token": "…"}])]
Guarded = Annotated[Accounts, Depends(may_try)]


@router.get("", summary="How one logs in", responses=problems())
async def sign_in(services: Services) -> SignInView:
    """No token: a page asks before anybody has one."""
    return SignInView(mode=services.settings.auth.mode)


@router.post("/ws-ticket", summary="Ticket for a WebSocket", responses=problems(403, 429))
async def ws_ticket(grant: Granted, services: Services) -> TicketView:
    """For browsers, whose WebSockets can send no header: works once, within 30 seconds."""
    ticket = await services.tickets.issue(grant)
    return TicketView(ticket=ticket.ticket, expires_in_s=ticket.expires_in_s)


@router.post("/login", summary="Log in", responses=problems(400, 403, 404, 429))
async def login(body: LoginBody, accounts: Guarded, request: Request, response: Response) -> TokensView:
    """Local accounts only. 403 says that the password has expired."""
    tokens = await accounts.login(body.login, body.password.get_secret_value())
    return _handed_out(tokens, body.cookie, request, response)


@router.post("/refresh", summary="Next access token", responses=problems(400, 404))
async def refresh(
    accounts: LocalAccounts, request: Request, response: Response, body: OptionalRefresh = None
) -> TokensView:
    """The refresh token comes in the body, or as the cookie; the next one goes the same way."""
    given, as_cookie = _refresh_token(body, request)
    if given is None:
        raise Unauthenticated("There is no session here; log in.")
    return _handed_out(await accounts.refresh(given), as_cookie, request, response)


@router.post("/logout", status_code=204, summary="Log out", responses=problems(400, 404))
async def logout(accounts: LocalAccounts, request: Request, body: OptionalRefresh = None) -> Response:
    """Ends the session, if there is one. An access token that is out runs out by itself."""
    given, _ = _refresh_token(body, request)
    if given is not None:
        await accounts.logout(given)
    response = Response(status_code=204)
    response.delete_cookie(_cookie_name(request), path=PATH, secure=_secure(request), httponly=True, samesite="strict")
    return response


@router.post("/password", summary="Change one's password", responses=problems(400, 404, 429))
async def change_password(body: PasswordBody, accounts: Guarded, request: Request, response: Response) -> TokensView:
    """Ends every other session of the account. Works with a password that has expired."""
    tokens = await accounts.change_password(
        body.login, body.password.get_secret_value(), body.new_password.get_secret_value()
    )
    return _handed_out(tokens, body.cookie, request, response)


@router.post("/reset", status_code=204, summary="Choose a password", responses=problems(400, 404, 429))
async def reset(body: ResetBody, accounts: Guarded) -> Response:
    """With a one-time token of an administrator. Ends every session of the account."""
    await accounts.reset(body.token.get_secret_value(), body.new_password.get_secret_value())
    return Response(status_code=204)


@router.get("/jwks", summary="Keys that verify access tokens", responses=problems(404), response_class=Response)
async def jwks(accounts: LocalAccounts) -> Response:
    """A JSON Web Key Set. No token."""
    return Response(
        await accounts.jwks(),
        media_type="application/jwk-set+json",
        headers={"cache-control": f"public, max-age={KEYS_MAX_AGE_S}"},
    )


def _handed_out(tokens: Tokens, as_cookie: bool, request: Request, response: Response) -> TokensView:
    if as_cookie:
        response.set_cookie(
            _cookie_name(request),
            tokens.refresh_token,
            max_age=tokens.session_ends_in_s,
            path=PATH,
            secure=_secure(request),
            httponly=True,
            samesite="strict",
        )
    return TokensView.of(tokens, cookie=as_cookie)


def _refresh_token(body: RefreshBody | None, request: Request) -> tuple[str | None, bool]:
    """The token, and whether it came as a cookie."""
    if body is not None and body.refresh_token is not None:
        return body.refresh_token.get_secret_value(), False
    return request.cookies.get(_cookie_name(request)), True


def _secure(request: Request) -> bool:
    """Whether the browser talks TLS to us. In production it does, also where TLS ends in front of this process."""
    services: IngressServices = request.app.state.services
    return services.settings.mode == "production" or request.url.scheme == "https"


def _cookie_name(request: Request) -> str:
    return SECURE_COOKIE if _secure(request) else COOKIE
