"""Local accounts as ingress sees them.

Adapter: ``service``. Neighbours: ``ingress.auth`` for the people who have accounts, the admin API for those who give them out.
An account is a login name with a password that belongs to one user of one tenant; what that user may do, ``access`` knows.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Tokens(Struct, frozen=True, kw_only=True):
    """What a session hands out. ``access_token`` is good for ``expires_in_s``; ``refresh_token`` works once, to get the next
    pair, until the session ends ``session_ends_in_s`` from now.
    """

    access_token: str
    refresh_token: str
    expires_in_s: int
    session_ends_in_s: int


class Reset(Struct, frozen=True, kw_only=True):
    """A one-time ``token`` that sets the password of the account ``login``, for ``expires_in_s``."""

    login: str
    token: str
    expires_in_s: int


class Accounts(Protocol):
    async def login(self, login: str, password: str) -> Tokens:
        """Begins a session.

        Raises Unauthenticated, the same for a name that nobody has, a wrong password and an account that is locked after too
        many of them; NotPermitted for a right password that has expired; Overloaded.
        """

    async def refresh(self, refresh_token: str) -> Tokens:
        """The session's next pair. A token used again ends its session, but for a repetition within seconds, which gets the
        same answer. Raises Unauthenticated.
        """

    async def logout(self, refresh_token: str) -> None:
        """Ends the session, if there is one."""

    async def change_password(self, login: str, password: str, new_password: str) -> Tokens:
        """Sets another password, ends every session of the account and begins one. Raises as ``login`` does, but not for a
        password that has expired; InvalidInput for a new one that is not good enough.
        """

    async def issue_reset(self, tenant_id: str, user_id: str, login: str) -> Reset:
        """Lets whoever has the token choose the password of this user's account, which is made if there is none.

        Called again, it makes the token before it void. Raises NotFound without such a user, Conflict where ``login`` is another
        user's name or the user has an account by another name, InvalidInput for a name that cannot be one.
        """

    async def reset(self, token: str, new_password: str) -> None:
        """Sets the password, unlocks the account and ends its sessions. The token works once.

        Raises Unauthenticated for a token that is not good (any more), InvalidInput for a password that is not good enough.
        """

    async def end_sessions(self, tenant_id: str, user_id: str) -> None:
        """Ends every session of the user, if there are any; access tokens run out by themselves."""

    async def remove(self, tenant_id: str, user_id: str) -> None:
        """Removes the user's account, if there is one: its name is free again, its sessions are over."""

    async def jwks(self) -> bytes:
        """The public keys that verify access tokens, as a JSON Web Key Set."""
