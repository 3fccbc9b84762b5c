"""Ingress with administration over a store in memory, and clients of all who may ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr

from serve_app.access.administration import Administration
from serve_app.access.directory import StoredDirectory
from serve_app.access.resolver import AccessResolver
from serve_app.caching.memory import MemoryCache
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.keys.ring import KeyRing
from serve_app.storage.port import RecordStore
from tests.unit.ingress.asgi import Client, Reply
from tests.unit.ingress.stages import Stages, make_stages

ADMIN_TOKEN = "the-platform's-token-0123456789-abcdefghij"
OLD_KEY = "an-old-key-of-forty-characters-012345678"
NEW_KEY = "a-newer-key-of-forty-characters-01234567"


@dataclass
class AdminBench:
    """Tenants ``acme`` and ``globex`` once ``make_tenants`` has been awaited."""

    keys: KeyRing | None = field(default_factory=lambda: KeyRing.parse(OLD_KEY))
    stages: Stages = field(default_factory=make_stages)
    more: dict[str, Any] = field(default_factory=dict)
    now: float = 1_800_000_000.0

    def __post_init__(self) -> None:
        cache = MemoryCache(max_entries=1_000, max_entry_bytes=1_000_000)
        store: RecordStore = self.stages.store
        self.directory = StoredDirectory(store, cache, ttl_s=60.0)
        self.access = AccessResolver(self.directory)
        self.app = self.make_app(self.keys)

    def make_app(self, keys: KeyRing | None) -> FastAPI:
        given = vars(self.stages.services()) | {
            "administration": Administration.over(self.directory, keys, clock=self._now),
            "admin_token": SecretStr(ADMIN_TOKEN),
        }
        return create_app(IngressServices(**(given | self.more)))

    def _now(self) -> float:
        """A second later each time, so that entries have an order."""
        self.now += 1.0
        return self.now

    @property
    def operator(self) -> Client:
        return Client(self.app, {"authorization": f"Bearer {ADMIN_TOKEN}"})

    def admin_of(self, tenant: str, user: str = "boss") -> Client:
        return self.user(tenant, user, "admin")

    def user(self, tenant: str, user: str, roles: str) -> Client:
        return Client(self.app, {"x-dev-tenant": tenant, "x-dev-user": user, "x-dev-roles": roles})

    async def make_tenants(self) -> None:
        for tenant in ("acme", "globex"):
            reply = await self.operator.request("POST", "/api/admin/tenants", {"tenant_id": tenant})
            assert reply.status == 201, reply.body

    async def audit(self, tenant: str | None = "acme") -> list[dict[str, Any]]:
        query = "" if tenant is None else f"tenant_id={tenant}"
        reply = await self.operator.request("GET", "/api/admin/audit", query=query)
        assert reply.status == 200, reply.body
        items: list[dict[str, Any]] = reply.json()["items"]
        return items


def same_apart_from_ids(one: Reply, other: Reply) -> bool:
    """Whether two answers cannot be told apart but by the id of their request."""

    def plain(reply: Reply) -> tuple[int, dict[str, str], Any]:
        headers = {name: value for name, value in reply.headers.items() if name not in {"x-request-id"}}
        return reply.status, headers, {**reply.json(), "request_id": ""}

    return plain(one) == plain(other)
