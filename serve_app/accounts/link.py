"""Which user an account is: its identity, written down where ``access`` looks for it.

An account's tokens name the user's own ids, so its identity is ``<tenant>/<user>``.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from msgspec.structs import replace

from serve_app.access.port import Saved
from serve_app.domain.access import MAX_IDENTITIES, IdentityRecord, UserRecord
from serve_app.domain.identity import Identity
from serve_app.errors import Conflict, NotFound, Overloaded

ATTEMPTS = 4


class Users(Protocol):
    """What this needs of ``access.port.Directory``."""

    async def get_user(self, tenant_id: str, user_id: str) -> Saved[UserRecord]: ...

    async def save_user(self, user: UserRecord, *, if_match: str | None = None) -> Saved[UserRecord]: ...

    async def get_identity(self, identity_id: str) -> Saved[IdentityRecord]: ...

    async def save_identity(
        self, identity: IdentityRecord, *, if_match: str | None = None
    ) -> Saved[IdentityRecord]: ...


class UserLinks:
    def __init__(self, users: Users) -> None:
        self._users = users

    async def linked(self, tenant_id: str, user_id: str) -> bool:
        """Whether the user's account is one of its identities. Raises NotFound without such a user."""
        user = (await self._users.get_user(tenant_id, user_id)).value
        return _identity_id(tenant_id, user_id) in user.identities

    async def link(self, tenant_id: str, user_id: str) -> None:
        """Makes it one. Raises NotFound without such a user, Conflict where that identity is another user, or it has too many."""
        identity_id = _identity_id(tenant_id, user_id)
        await self._claim(IdentityRecord(identity_id=identity_id, tenant_id=tenant_id, user_id=user_id))
        for _ in range(ATTEMPTS):
            saved = await self._users.get_user(tenant_id, user_id)
            user = saved.value
            if identity_id in user.identities:
                return
            if len(user.identities) >= MAX_IDENTITIES:
                raise Conflict(f"This user has {MAX_IDENTITIES} identities already.")
            with contextlib.suppress(Conflict):  # changed this moment
                more = replace(user, identities=(*user.identities, identity_id))
                await self._users.save_user(more, if_match=saved.etag)
                return
        raise Overloaded("This user is being changed by too many at once.", None, 1.0)

    async def _claim(self, identity: IdentityRecord) -> None:
        try:
            await self._users.save_identity(identity, if_match="")
        except Conflict:
            known = await self._users.get_identity(identity.identity_id)
            if (known.value.tenant_id, known.value.user_id) == (identity.tenant_id, identity.user_id):
                return
            if await self._is(known.value):
                raise Conflict(f"The subject {identity.user_id} is another user already.") from None
            await self._users.save_identity(identity, if_match=known.etag)

    async def _is(self, identity: IdentityRecord) -> bool:
        """Whether the user that it points at is there and says the same."""
        try:
            user = (await self._users.get_user(identity.tenant_id, identity.user_id)).value
        except NotFound:
            return False
        return identity.identity_id in user.identities


def _identity_id(tenant_id: str, user_id: str) -> str:
    return Identity(issuer="", tenant=tenant_id, subject=user_id, expires_at=0).identity_id
