"""Local accounts from the settings."""

from __future__ import annotations

import time

from serve_app.accounts.ledger import Ledger
from serve_app.accounts.link import UserLinks, Users
from serve_app.accounts.passwords import Passwords
from serve_app.accounts.service import DAY_S, AccountRules, AccountService
from serve_app.accounts.sessions import Sessions, TokenTerms
from serve_app.accounts.signing import open_signing_keys
from serve_app.credentials import Secrets
from serve_app.identity.claims import Clock
from serve_app.identity.connect import OWN_AUDIENCE, OWN_ISSUER, OWN_TENANT_CLAIM
from serve_app.settings import Settings
from serve_app.storage.port import RecordStore


def connect(
    settings: Settings,
    secrets: Secrets,
    store: RecordStore,
    users: Users,
    *,
    passwords: Passwords | None = None,
    clock: Clock = time.time,
) -> AccountService | None:
    """The accounts, or None where the settings name another way to log in. Raises ConfigError."""
    auth = settings.auth
    if auth.mode != "accounts":
        return None
    keys = open_signing_keys(settings, secrets)
    terms = TokenTerms(
        issuer=auth.issuer or OWN_ISSUER,
        audience=auth.audience or OWN_AUDIENCE,
        tenant_claim=OWN_TENANT_CLAIM,
        access_token_s=auth.access_token_s,
        session_s=int(auth.session_days * DAY_S),
    )
    days = auth.password_max_age_days
    rules = AccountRules(
        lockout_attempts=auth.lockout_attempts,
        lockout_s=auth.lockout_s,
        reset_s=auth.reset_s,
        password_max_age_s=None if days is None else days * DAY_S,
    )
    ledger = Ledger(store)
    return AccountService(
        ledger,
        UserLinks(users),
        Sessions(ledger, keys, terms, clock),
        keys,
        passwords or Passwords(min_chars=auth.password_min_chars),
        rules,
        clock,
    )
