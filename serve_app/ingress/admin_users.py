"""Users of a tenant, and the identities they are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from serve_app.access.audit import Change
from serve_app.domain.access import UserRecord
from serve_app.domain.ids import new_id
from serve_app.errors import Conflict
from serve_app.ingress.administrators import Admin, Administrator, Cursor, OfTenant, PageLimit
from serve_app.ingress.dependencies import RequestId, Services, problems
from serve_app.ingress.etags import IfMatch, set_etag
from serve_app.wire.admin import ResetView, UserPage, UserView
from serve_app.wire.admin_requests import AccountReset, NewUser, Subject, SubjectBody, UserId, UserPatch

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/users", summary="List users", responses=problems(403, 404))
async def list_users(
    actor: Administrator, admin: Admin, tenant_id: OfTenant = None, cursor: Cursor = None, limit: PageLimit = 50
) -> UserPage:
    """By id."""
    return UserPage.of(await admin.users.listing(actor, tenant_id, cursor=cursor, limit=limit))


@router.post("/users", status_code=201, summary="Create a user", responses=problems(400, 403, 404, 409))
async def create_user(
    body: NewUser,
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    response: Response,
    tenant_id: OfTenant = None,
) -> UserView:
    tenant = (await admin.tenants.get(actor, tenant_id)).value
    user = UserRecord(
        tenant_id=tenant.tenant_id,
        user_id=body.user_id or new_id("u_"),
        name=body.name,
        email=body.email,
        roles=tuple(dict.fromkeys(body.roles)),
    )
    saved = await admin.users.create(actor, user, subject=body.subject, request_id=request_id)
    set_etag(response, saved.etag)
    return UserView.of(saved)


@router.get("/users/{user_id}", summary="One user", responses=problems(403, 404))
async def get_user(
    user_id: UserId, actor: Administrator, admin: Admin, response: Response, tenant_id: OfTenant = None
) -> UserView:
    saved = await admin.users.get(actor, tenant_id, user_id)
    set_etag(response, saved.etag)
    return UserView.of(saved)


@router.patch("/users/{user_id}", summary="Change a user", responses=problems(400, 403, 404, 409))
async def patch_user(
    user_id: UserId,
    patch: UserPatch,
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> UserView:
    """Counts from the user's next request on."""
    saved = await admin.users.change(
        actor, tenant_id, user_id, patch.changes(), if_match=if_match, request_id=request_id
    )
    set_etag(response, saved.etag)
    return UserView.of(saved)


@router.delete("/users/{user_id}", status_code=204, summary="Remove a user", responses=problems(403, 404, 409))
async def delete_user(
    user_id: UserId,
    actor: Administrator,
    admin: Admin,
    services: Services,
    request_id: RequestId,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> Response:
    """They have no access from now on. What they have written stays."""
    accounts = services.accounts

    async def remove_account(user: UserRecord) -> None:
        if accounts is not None:
            await accounts.remove(user.tenant_id, user.user_id)

    # The account goes first: one that outlived its user would open the next user of that id by the password of then.
    await admin.users.delete(actor, tenant_id, user_id, if_match=if_match, request_id=request_id, first=remove_account)
    return Response(status_code=204)


@router.post("/users/{user_id}/reset", summary="Let a user choose a password", responses=problems(400, 403, 404, 409))
async def reset_user(
    user_id: UserId,
    body: AccountReset,
    actor: Administrator,
    admin: Admin,
    services: Services,
    request_id: RequestId,
    tenant_id: OfTenant = None,
) -> ResetView:
    """Local accounts only. The token is for `/api/auth/reset`, works once, and is shown here only; the account is made if there
    is none yet.
    """
    user = (await admin.users.get_for_change(actor, tenant_id, user_id)).value
    accounts = services.accounts
    if accounts is None:
        raise Conflict("Others know who people are here: passwords are set where they log in.")
    await admin.users.check_subject(user, user_id)
    login = body.login or user_id
    change = Change(
        actor=actor,
        tenant_id=user.tenant_id,
        action="user.reset",
        target=f"user:{user_id}",
        after={"login": login},
        request_id=request_id,
    )
    reset = await admin.log.during(change, lambda: accounts.issue_reset(user.tenant_id, user_id, login))
    return ResetView(login=reset.login, token=reset.token, expires_in_s=reset.expires_in_s)


@router.post("/users/{user_id}/subjects", summary="Add an identity", responses=problems(400, 403, 404, 409))
async def add_subject(
    user_id: UserId,
    body: SubjectBody,
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> UserView:
    """Whoever the identity provider knows by this id is this user, too."""
    saved = await admin.users.link(actor, tenant_id, user_id, body.subject, if_match=if_match, request_id=request_id)
    set_etag(response, saved.etag)
    return UserView.of(saved)


@router.delete("/users/{user_id}/subjects", summary="Remove an identity", responses=problems(403, 404, 409))
async def remove_subject(
    user_id: UserId,
    subject: Annotated[Subject, Query()],
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> UserView:
    saved = await admin.users.unlink(actor, tenant_id, user_id, subject, if_match=if_match, request_id=request_id)
    set_etag(response, saved.etag)
    return UserView.of(saved)
