"""An identity provider as a graph in production mode knows it: a file of public keys, and the tokens that it signs."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt

from tests.e2e.protocol_client import Api
from tests.unit.identity.forge import AUDIENCE, ISSUER, KID, jwk, key_set, rsa_key

TENANT = "contoso"
DOMAIN = "contoso.example"
OPERATOR_TOKEN = "operator-" + "0123456789abcdef" * 2
TOKEN_S = 3600.0


class Issuer:
    """``variables`` are a graph's settings. ``open_to_all`` makes everybody of the domain a user, by their first request."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa_key("end to end")
        keys = folder / "jwks.json"
        keys.write_bytes(key_set(jwk(self._key)))
        self.variables = {
            "PARLEY_MODE": "production",
            "PARLEY_AUTH__MODE": "jwt",
            "PARLEY_AUTH__ISSUER": ISSUER,
            "PARLEY_AUTH__AUDIENCE": AUDIENCE,
            "PARLEY_AUTH__JWKS": str(keys),
            "PARLEY_ADMIN_TOKEN": OPERATOR_TOKEN,
        }

    async def open_to_all(self, url: str, tenant: str = TENANT) -> None:
        headers = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
            (await http.post("/api/admin/tenants", json={"tenant_id": tenant})).raise_for_status()
            everybody = {"match": "domain", "value": DOMAIN}
            answer = await http.post("/api/admin/provisioning", params={"tenant_id": tenant}, json=everybody)
            answer.raise_for_status()

    def token(self, user: str, roles: str = "sales", tenant: str = TENANT, **claims: Any) -> str:
        now = time.time()
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user,
            "tenant_id": tenant,
            "email": f"{user}@{DOMAIN}",
            "email_verified": True,
            "roles": [role for role in roles.split(",") if role],
            "iat": now,
            "exp": now + TOKEN_S,
        }
        return jwt.encode(said | claims, self._key, algorithm="RS256", headers={"kid": KID})

    @asynccontextmanager
    async def as_new_user(self, url: str, roles: str = "sales", tenant: str = TENANT) -> AsyncIterator[Api]:
        user = f"u{uuid.uuid4().hex[:12]}"
        async with Api.with_token(url, self.token(user, roles, tenant), user, roles) as api:
            yield api
