"""What is kept of local accounts: one record for each, one that finds it by its user, and one for each session.

All of it is the system's (``SYSTEM_TENANT``), because a login comes before any tenant is known, but for ``AccountName``. No
record has a secret in it: of a password and a one-time token a hash, of a refresh token nothing.
"""

from __future__ import annotations

import re
import secrets

from msgspec import Struct, field

from serve_app.errors import InvalidInput

ACCOUNTS_KIND = "account"
ACCOUNT_NAMES_KIND = "account_name"
SESSIONS_KIND = "account_session"
STRANGERS_KIND = "account_stranger"

MAX_LOGIN_CHARS = 128
_LOGIN = re.compile(r"[a-z0-9_.@+-]{1,128}")


def new_epoch() -> int:
    """One that no account has had."""
    return secrets.randbits(62)


class Account(Struct, frozen=True, kw_only=True):
    """A login name and its password. Instants are Unix seconds.

    ``password_hash`` is empty until somebody has chosen a password. ``epoch`` is another number whenever every session ends, and
    in every account: a session of another one is over, also where the name has become somebody else's. ``attempts``: logins
    since the last that was right, ``attempted_at`` the newest of them. ``reset_hash`` is the SHA-256 of the secret in a one-time
    token that is good until ``reset_until``.
    """

    login: str
    tenant_id: str
    user_id: str
    password_hash: str = ""
    password_set_at: float = 0.0
    epoch: int = field(default_factory=new_epoch)
    attempts: int = 0
    attempted_at: float = 0.0
    reset_hash: str = ""
    reset_until: float = 0.0


class AccountName(Struct, frozen=True, kw_only=True):
    """By which name a user of a tenant logs in."""

    login: str


class Session(Struct, frozen=True, kw_only=True):
    """A login that is kept up by refresh tokens; the one numbered ``generation`` is good, since ``rotated_at``."""

    login: str
    epoch: int
    expires_at: float
    rotated_at: float
    generation: int = 0


def normal_login(login: str) -> str | None:
    """The name as it is kept, or None for what cannot be one."""
    name = login.strip().lower()
    return name if _LOGIN.fullmatch(name) else None


def required_login(login: str) -> str:
    """The same. Raises InvalidInput."""
    name = normal_login(login)
    if name is None:
        raise InvalidInput(
            f"A login name has 1 to {MAX_LOGIN_CHARS} letters, digits or any of _ . @ + -; an e-mail address is one."
        )
    return name
