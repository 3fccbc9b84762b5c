"""Accounts and sessions in the store: typed records, each changed only as it was last seen."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from serve_app.accounts.records import (
    ACCOUNT_NAMES_KIND,
    ACCOUNTS_KIND,
    SESSIONS_KIND,
    STRANGERS_KIND,
    Account,
    AccountName,
    Session,
)
from serve_app.domain.access import SYSTEM_TENANT
from serve_app.errors import NotFound
from serve_app.storage.expiring import delete_if_there, sweep_expired
from serve_app.storage.port import RecordStore

T = TypeVar("T", Account, AccountName, Session)

_ENCODER = msgspec.json.Encoder()
_ACCOUNT = msgspec.json.Decoder(Account)
_NAME = msgspec.json.Decoder(AccountName)
_SESSION = msgspec.json.Decoder(Session)


class Seen(Struct, Generic[T], frozen=True):
    """A record as it was read or written last."""

    value: T
    etag: str


class Ledger:
    """``find`` gives None for what is not there. Every change raises Conflict where the record is another by now; an empty
    ``etag`` is for one that is new.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    async def find_account(self, login: str) -> Seen[Account] | None:
        return await self._find(_ACCOUNT, SYSTEM_TENANT, ACCOUNTS_KIND, login)

    async def save_account(self, account: Account, etag: str) -> Seen[Account]:
        return await self._save(account, SYSTEM_TENANT, ACCOUNTS_KIND, account.login, etag)

    async def count_stranger(self) -> None:
        """Takes as long as to count an attempt at an account that is there."""
        await self._store.save_record(SYSTEM_TENANT, STRANGERS_KIND, "attempt", b"{}")

    async def find_login(self, tenant_id: str, user_id: str) -> str | None:
        """The name of this user's account."""
        found = await self._find(_NAME, tenant_id, ACCOUNT_NAMES_KIND, user_id)
        return None if found is None else found.value.login

    async def take_login(self, tenant_id: str, user_id: str, login: str) -> None:
        """Makes it the name of this user's account, which has none yet."""
        await self._save(AccountName(login=login), tenant_id, ACCOUNT_NAMES_KIND, user_id, "")

    async def delete_account(self, tenant_id: str, user_id: str, login: str) -> None:
        """The account and its name, as far as they are there."""
        await delete_if_there(self._store, ACCOUNTS_KIND, login)
        await delete_if_there(self._store, ACCOUNT_NAMES_KIND, user_id, tenant_id)

    async def find_session(self, session_id: str) -> Seen[Session] | None:
        return await self._find(_SESSION, SYSTEM_TENANT, SESSIONS_KIND, session_id)

    async def save_session(self, session_id: str, session: Session, etag: str) -> None:
        await self._save(session, SYSTEM_TENANT, SESSIONS_KIND, session_id, etag)

    async def delete_session(self, session_id: str) -> None:
        """Nothing happens where there is none."""
        await delete_if_there(self._store, SESSIONS_KIND, session_id)

    async def sweep_sessions(self, now: float) -> None:
        """Removes a few that are over."""
        await sweep_expired(self._store, SESSIONS_KIND, now)

    async def _find(
        self, decoder: msgspec.json.Decoder[T], tenant_id: str, kind: str, record_id: str
    ) -> Seen[T] | None:
        try:
            record = await self._store.get_record(tenant_id, kind, record_id)
        except NotFound:
            return None
        return Seen(decoder.decode(record.body), record.etag)

    async def _save(self, value: T, tenant_id: str, kind: str, record_id: str, etag: str) -> Seen[T]:
        record = await self._store.save_record(tenant_id, kind, record_id, _ENCODER.encode(value), if_match=etag)
        return Seen(value, record.etag)
