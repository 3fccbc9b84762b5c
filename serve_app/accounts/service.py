"""Local accounts: the ``Accounts`` port over the record store.

Guessing is bounded by counting: an attempt is written down before it is judged, so that a thousand at once are counted one by
one. A name that nobody has costs as much time, and gets the same answer, as a wrong password and a locked account.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

from msgspec import Struct
from msgspec.structs import replace

from serve_app.accounts.ledger import Ledger, Seen
from serve_app.accounts.link import UserLinks
from serve_app.accounts.passwords import Passwords
from serve_app.accounts.port import Reset, Tokens
from serve_app.accounts.records import Account, new_epoch, normal_login, required_login
from serve_app.accounts.sessions import Sessions
from serve_app.accounts.signing import SigningKeys
from serve_app.errors import Conflict, NotPermitted, Overloaded, Unauthenticated
from serve_app.identity.claims import Clock
from serve_app.telemetry import logger

ATTEMPTS = 8
"""How often a change of an account that others change, too, is tried."""
DAY_S = 86_400.0
MAX_RESET_CHARS = 256

_RESET = re.compile(r"([A-Za-z0-9_-]{1,172})\.([A-Za-z0-9_-]{43})")

log = logger("accounts")


class AccountRules(Struct, frozen=True, kw_only=True):
    """See ``AuthSettings`` for the same names."""

    lockout_attempts: int
    lockout_s: float
    reset_s: int
    password_max_age_s: float | None


class AccountService:
    def __init__(
        self,
        ledger: Ledger,
        links: UserLinks,
        sessions: Sessions,
        keys: SigningKeys,
        passwords: Passwords,
        rules: AccountRules,
        clock: Clock = time.time,
    ) -> None:
        self._ledger = ledger
        self._links = links
        self._sessions = sessions
        self._keys = keys
        self._passwords = passwords
        self._rules = rules
        self._clock = clock

    async def login(self, login: str, password: str) -> Tokens:
        seen = await self._judge(login, password)
        if self._clock() > self._password_until(seen.value):
            raise NotPermitted("Your password has expired; choose another one.", None, None, [{"reason": "expired"}])
        return await self._sessions.begin(seen.value, self._password_until(seen.value))

    async def refresh(self, refresh_token: str) -> Tokens:
        return await self._sessions.go_on(refresh_token)

    async def logout(self, refresh_token: str) -> None:
        await self._sessions.end(refresh_token)

    async def change_password(self, login: str, password: str, new_password: str) -> Tokens:
        seen = await self._judge(login, password)
        self._passwords.require_good(new_password, seen.value.login)
        new_hash = await self._passwords.hash(new_password)
        try:
            changed = await self._ledger.save_account(self._with_password(seen.value, new_hash), seen.etag)
        except Conflict:
            raise _busy() from None
        log.info("password_changed", tenant_id=changed.value.tenant_id, user_id=changed.value.user_id)
        return await self._sessions.begin(changed.value, self._password_until(changed.value))

    async def issue_reset(self, tenant_id: str, user_id: str, login: str) -> Reset:
        name = required_login(login)
        linked = await self._links.linked(tenant_id, user_id)
        await self._claim_name(tenant_id, user_id, name)
        secret = secrets.token_urlsafe(32)
        for _ in range(ATTEMPTS):
            seen = await self._own_account(tenant_id, user_id, name)
            # Linked last, and anew: whoever had this user's id before must not come in by the password of then.
            account = seen.value if linked else replace(seen.value, password_hash="", epoch=new_epoch())
            until = self._clock() + self._rules.reset_s
            try:
                await self._ledger.save_account(
                    replace(account, reset_hash=_sha256(secret), reset_until=until), seen.etag
                )
            except Conflict:
                continue
            await self._links.link(tenant_id, user_id)
            log.info("reset_issued", tenant_id=tenant_id, user_id=user_id)
            return Reset(login=name, token=f"{_encoded(name)}.{secret}", expires_in_s=self._rules.reset_s)
        raise _busy()

    async def reset(self, token: str, new_password: str) -> None:
        name, secret = _opened(token)
        seen = await self._offered(name, secret)
        self._passwords.require_good(new_password, name)
        new_hash = await self._passwords.hash(new_password)
        for _ in range(ATTEMPTS):
            try:
                await self._ledger.save_account(self._with_password(seen.value, new_hash), seen.etag)
            except Conflict:
                seen = await self._offered(name, secret)
                continue
            log.info("password_reset", tenant_id=seen.value.tenant_id, user_id=seen.value.user_id)
            return
        raise _busy()

    async def end_sessions(self, tenant_id: str, user_id: str) -> None:
        login = await self._ledger.find_login(tenant_id, user_id)
        for _ in range(ATTEMPTS):
            seen = None if login is None else await self._ledger.find_account(login)
            if seen is None:
                return
            try:
                await self._ledger.save_account(replace(seen.value, epoch=new_epoch()), seen.etag)
            except Conflict:
                continue
            return
        raise _busy()

    async def remove(self, tenant_id: str, user_id: str) -> None:
        login = await self._ledger.find_login(tenant_id, user_id)
        if login is not None:
            await self._ledger.delete_account(tenant_id, user_id, login)

    async def jwks(self) -> bytes:
        return self._keys.key_set()

    async def _judge(self, login: str, password: str) -> Seen[Account]:
        """The account whose name and password these are. Raises Unauthenticated."""
        name = normal_login(login)
        counted = None if name is None else await self._count_attempt(name)
        if counted is None:
            await self._ledger.count_stranger()
        known = counted.value.password_hash if counted is not None else ""
        right = await self._passwords.verify(known, password)
        if counted is None or not right:
            raise Unauthenticated(
                "The name or the password is not right; after several attempts, the account is locked for a while."
            )
        rehashed = known if not self._passwords.outdated(known) else await self._passwords.hash(password)
        return await self._settle(replace(counted.value, password_hash=rehashed, attempts=0), counted.etag)

    async def _count_attempt(self, name: str) -> Seen[Account] | None:
        """The account with one more attempt, or None where there is none or it is locked."""
        for _ in range(ATTEMPTS):
            seen = await self._ledger.find_account(name)
            if seen is None:
                return None
            account, now = seen.value, self._clock()
            recent = account.attempts if now - account.attempted_at < self._rules.lockout_s else 0
            if recent >= self._rules.lockout_attempts:
                log.warning("account_locked", tenant_id=account.tenant_id, user_id=account.user_id)
                return None
            try:
                return await self._ledger.save_account(
                    replace(account, attempts=recent + 1, attempted_at=now), seen.etag
                )
            except Conflict:
                continue  # another attempt, this moment
        return None  # to say that many try would say that there is such an account

    async def _settle(self, judged: Account, etag: str) -> Seen[Account]:
        """A right password forgets the attempts before it. Of two at once it is enough that one does."""
        try:
            return await self._ledger.save_account(judged, etag)
        except Conflict:
            seen = await self._ledger.find_account(judged.login)
            if seen is None or seen.value.epoch != judged.epoch:
                raise Unauthenticated("The password was changed this moment; log in again.") from None
            return seen

    def _password_until(self, account: Account) -> float:
        max_age_s = self._rules.password_max_age_s
        return math.inf if max_age_s is None else account.password_set_at + max_age_s

    def _with_password(self, account: Account, password_hash: str) -> Account:
        return replace(
            account,
            password_hash=password_hash,
            password_set_at=self._clock(),
            epoch=new_epoch(),
            attempts=0,
            reset_hash="",
            reset_until=0.0,
        )

    async def _claim_name(self, tenant_id: str, user_id: str, name: str) -> None:
        """The name is this user's from now on, or already. Raises Conflict."""
        login = await self._ledger.find_login(tenant_id, user_id)
        if login is not None and login != name:
            raise Conflict(f"This user logs in as {login}.")
        with contextlib.suppress(Conflict):  # there is one; whose, is seen next
            await self._ledger.save_account(Account(login=name, tenant_id=tenant_id, user_id=user_id), "")
        await self._own_account(tenant_id, user_id, name)
        if login is None:
            await self._ledger.take_login(tenant_id, user_id, name)

    async def _own_account(self, tenant_id: str, user_id: str, name: str) -> Seen[Account]:
        seen = await self._ledger.find_account(name)
        if seen is None or (seen.value.tenant_id, seen.value.user_id) != (tenant_id, user_id):
            raise Conflict("This login name is somebody else's.")
        return seen

    async def _offered(self, name: str, secret: str) -> Seen[Account]:
        """The account that this one-time secret opens. Raises Unauthenticated."""
        seen = await self._ledger.find_account(name)
        if seen is None or not seen.value.reset_hash or self._clock() >= seen.value.reset_until:
            raise _no_offer()
        if not hmac.compare_digest(seen.value.reset_hash, _sha256(secret)):
            raise _no_offer()
        return seen


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _encoded(login: str) -> str:
    return urlsafe_b64encode(login.encode()).rstrip(b"=").decode()


def _opened(token: str) -> tuple[str, str]:
    """Login and secret of a one-time token. Raises Unauthenticated."""
    parts = _RESET.fullmatch(token) if len(token) <= MAX_RESET_CHARS else None
    if parts is None:
        raise _no_offer()
    try:
        name = normal_login(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode())
    except ValueError:
        name = None
    if name is None:
        raise _no_offer()
    return name, parts[2]


def _no_offer() -> Unauthenticated:
    return Unauthenticated("This one-time token is not good any more; ask for another one.")


def _busy() -> Overloaded:
    return Overloaded("Too many log in to this account at this moment.", None, 1.0)
