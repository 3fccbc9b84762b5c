"""A server with something of Anna's in it, and everybody who might want it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.routing import BaseRoute

from serve_app.access.administration import Administration
from serve_app.access.directory import StoredDirectory
from serve_app.caching.memory import MemoryCache
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.ingress.app import create_app
from serve_app.keys.ring import KeyRing
from serve_app.turns.approval_records import ApprovalRecords
from tests.security.people import ANNA, BERT, NAMESAKE, TableAuthenticator, token_settings
from tests.unit.ingress.asgi import Client, Reply
from tests.unit.ingress.stages import Stages, make_stages
from tests.unit.ingress.test_sse import asking

OPERATOR_TOKEN = "the-token-of-the-operator-0123456789"
PEOPLE = {
    "anna": ANNA,
    "bert": BERT,
    "namesake": NAMESAKE,
    "admin": Principal(tenant_id="acme", user_id="boss", roles=("admin",)),
    "other-admin": Principal(tenant_id="globex", user_id="boss", roles=("admin",)),
    "platform": Principal(tenant_id="globex", user_id="root", roles=("platform-admin",)),
    "expired": ANNA,
    "removed": ANNA,
}
FILE = (
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\n'
    b"hello\r\n--b--\r\n"
)
CONVERSATION, NO_CONVERSATION = "conv-anna", "conv-none"
BODIES = {
    "/api/chat": asking("Hi", CONVERSATION),
    "/api/admin/provider-keys/{provider}": {"key": "sk-0123456789-abc"},
    "/v1/chat/completions": {"model": "small", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"model": "small", "input": "Hi"},
}
"""Where the document's example would not do: it names a conversation of its own, no key that could be one, another model."""
_DOCUMENT: dict[str, Any] = {}


@dataclass
class World:
    app: FastAPI
    stages: Stages
    theirs: dict[str, str] = field(default_factory=dict)
    """Ids of what is Anna's and her tenant's, by the name of the parameter."""
    missing: dict[str, str] = field(default_factory=dict)
    """As many that nothing has, each as long."""

    def client(self, who: str | None) -> Client:
        if who is None:
            return Client(self.app)
        token = OPERATOR_TOKEN if who == "operator" else f"token-of-{who}"
        return Client(self.app, {"authorization": f"Bearer {token}"})

    def routes(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Every operation of the OpenAPI document."""
        for path, operations in self.app.openapi()["paths"].items():
            for method, operation in operations.items():
                yield method.upper(), path, operation

    def unlisted(self) -> set[str]:
        """Paths of all routes that the document does not show."""
        listed = {path for _, path, _ in self.routes()}
        found = (re.sub(r":\w+}", "}", path) for path in _paths(self.app.routes))
        return {path for path in found if path not in listed}

    async def ask(
        self, who: str | None, method: str, path: str, ids: Mapping[str, str], request_id: str = "r1"
    ) -> Reply:
        """Sends what the document gives as the example for the route, with ``ids`` in the places of its parameters."""
        operation = self.app.openapi()["paths"][path][method.lower()]
        query = {
            one["name"]: ids.get(one["name"], "x" if one["name"] in {"value", "subject"} else "email")
            for one in operation.get("parameters", ())
            if one["in"] == "query" and (one["name"] in ids or one.get("required"))
        }
        headers = {"x-request-id": request_id}
        body, raw = self._body(path, operation), None
        if path == "/api/file" and method == "POST":
            body, raw, headers["content-type"] = None, FILE, "multipart/form-data; boundary=b"
        where = path.format_map(dict(ids))
        return await self.client(who).request(method, where, body, raw=raw, query=urlencode(query), headers=headers)

    def _body(self, path: str, operation: Mapping[str, Any]) -> Any:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return None
        if path in BODIES:
            return BODIES[path]
        return self._example(content) or self._example(content["schema"])

    def _example(self, schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            schema = self.app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "examples" in schema:
            examples = schema["examples"]
            return examples[0] if isinstance(examples, list) else next(iter(examples.values()))["value"]
        for variant in schema.get("anyOf", ()):
            if (found := self._example(variant)) is not None:
                return found
        if "properties" in schema:
            found = {name: self._example(one) for name, one in schema["properties"].items()}
            return {name: value for name, value in found.items() if value is not None}
        return schema.get("example")


def _paths(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        path = getattr(route, "path", None)
        if isinstance(path, str):
            yield path
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            yield from _paths(getattr(inner, "routes", []))


async def make_world() -> World:
    stages = make_stages()
    people = TableAuthenticator()
    for name, principal in PEOPLE.items():
        person = people.add(f"token-of-{name}", principal)
        person.removed = name == "removed"
        if name == "expired":
            person.expires_at = 0.0
    directory = StoredDirectory(stages.store, MemoryCache(max_entries=100, max_entry_bytes=100_000), ttl_s=60)
    keys = KeyRing.parse("a-key-of-forty-characters-0123456789-abc")
    services = replace(
        stages.services(token_settings()),
        authenticator=people,
        administration=Administration.over(directory, keys),
        admin_token=SecretStr(OPERATOR_TOKEN),
    )
    world = World(create_app(services), stages)
    if not _DOCUMENT:  # the same for every server, and slow to make
        _DOCUMENT.update(world.app.openapi())
    world.app.openapi_schema = _DOCUMENT
    anna, operator = world.client("anna"), world.client("operator")

    sent = await anna.request("POST", "/api/chat", asking("What is Anna's", CONVERSATION))
    turn_id = sent.headers["x-turn-id"]
    messages = (await anna.request("GET", f"/api/conversations/{CONVERSATION}/messages")).json()["items"]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    file_id = (await anna.request("POST", "/api/file", raw=FILE, headers=headers)).json()["file_id"]
    asked = {"model": "small", "input": "What is Anna's"}
    response = (await anna.request("POST", "/v1/responses", asked)).json()
    approval = await ApprovalRecords(stages.store).ask(ANNA, TurnKey.of(ANNA, turn_id), "call_1", 600)
    for tenant in ("acme", "globex"):
        reply = await operator.request("POST", "/api/admin/tenants", {"tenant_id": tenant})
        assert reply.status == 201, reply.body
    user = {"user_id": "carol", "name": "Carol", "roles": ["sales"]}
    assert (await operator.request("POST", "/api/admin/users", user, query="tenant_id=acme")).status == 201
    key = {"key": "sk-of-acme-0123456789"}
    await operator.request("PUT", "/api/admin/provider-keys/openai", key, query="tenant_id=acme")

    world.theirs = {
        "conversation_id": CONVERSATION,
        "message_id": messages[-1]["id"],
        "turn_id": turn_id,
        "file_id": file_id,
        "approval_id": approval.approval_id,
        "tenant_id": "acme",
        "user_id": "carol",
        "provider": "openai",
        "name": "crm.find_account",
        "response_id": response["id"],
        "model": "small",
    }
    world.missing = {name: _other(value) for name, value in world.theirs.items()}
    world.missing |= {"conversation_id": NO_CONVERSATION, "tenant_id": "none", "model": "small"}
    world.missing["turn_id"] = _other(turn_id)
    return world


def _other(value: str) -> str:
    """As long, of the same letters, and nobody's."""
    return value[:-3] + ("YYY" if value[-3:].isupper() or value[-3:].isdigit() else "zzz")


def without_ids(text: str, *ids: Mapping[str, str]) -> str:
    every = [(name, value) for one in ids for name, value in one.items()]
    for name, value in sorted(every, key=lambda pair: -len(pair[1])):  # one id may be a part of another
        text = text.replace(value, f"<{name}>")
    return text
