"""Local accounts over a store in memory, with a clock of the test's own and hashes that cost nothing."""

from __future__ import annotations

from argon2 import PasswordHasher

from serve_app.access.directory import StoredDirectory
from serve_app.accounts.connect import connect
from serve_app.accounts.passwords import Passwords
from serve_app.accounts.service import AccountService
from serve_app.caching.off import NoCache
from serve_app.credentials import Secrets
from serve_app.domain.access import UserRecord
from serve_app.settings import AuthSettings, Settings
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.unit.accounts.keys import signing_pem

NOW = 1_800_000_000.0
TENANT, USER, LOGIN = "contoso", "u-ana", "ana@contoso.example"
PASSWORD = "correct horse battery"
OTHER_PASSWORD = "staple of a quiet evening"

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, auth: AuthSettings | None = None, store: Store | None = None) -> None:
        self.settings = Settings(auth=auth or AuthSettings(mode="accounts"))
        self.store: Store = store or MemoryStore()
        self.directory = StoredDirectory(self.store, NoCache(), ttl_s=1)
        self.clock = Clock()
        self.passwords = Passwords(min_chars=self.settings.auth.password_min_chars, hasher=CHEAP)
        self.accounts = self.another_replica()

    def another_replica(self, pem: str | None = None) -> AccountService:
        accounts = connect(
            self.settings,
            Secrets.model_validate({"parley_signing_key": pem or signing_pem("one")}),
            self.store,
            self.directory,
            passwords=self.passwords,
            clock=self.clock,
        )
        assert accounts is not None
        return accounts

    async def add_user(self, user_id: str = USER, tenant_id: str = TENANT) -> None:
        await self.directory.save_user(UserRecord(tenant_id=tenant_id, user_id=user_id, roles=("sales",)))

    async def add_account(self, user_id: str = USER, login: str = LOGIN, password: str = PASSWORD) -> None:
        await self.add_user(user_id)
        issued = await self.accounts.issue_reset(TENANT, user_id, login)
        await self.accounts.reset(issued.token, password)
