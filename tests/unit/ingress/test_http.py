"""Conversations, the service's own routes, and what holds for every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from ulid import ULID

from serve_app.domain.generation import ModelCatalog
from serve_app.domain.ids import ConversationKey
from serve_app.domain.tools import ToolServerState
from serve_app.errors import NotFound, Overloaded, StageUnavailable
from serve_app.files.filesystem import FilesystemFiles
from serve_app.ingress.app import create_app
from serve_app.ingress.edge import CSP
from serve_app.ingress.services import IngressServices
from serve_app.settings import LimitSettings, Settings
from serve_app.turns.shadow_records import (
    KIND,
    CandidateRecord,
    MirroredTrial,
    MirroredTurn,
    ShadowRecords,
    read_record,
)
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import Stages, answered, text
from tests.unit.ingress.test_sse import asking


async def chat(client: Client, conversation_id: str, content: str = "Hi") -> None:
    assert (await client.request("POST", "/api/chat", asking(content, conversation_id))).status == 200


# Conversations


async def test_conversations_are_listed_page_by_page_newest_first(client: Client) -> None:
    for name in ("a", "b", "c"):
        await chat(client, name)
    first = (await client.request("GET", "/api/conversations", query="limit=2")).json()
    assert [item["id"] for item in first["items"]] == ["c", "b"]
    rest = (await client.request("GET", "/api/conversations", query=f"limit=2&cursor={first['next_cursor']}")).json()
    assert [item["id"] for item in rest["items"]] == ["a"]
    assert rest["next_cursor"] is None
    assert (await client.request("GET", "/api/conversations", query="cursor=nonsense")).status == 422
    assert (await client.request("GET", "/api/conversations", query="limit=201")).status == 422


async def test_a_conversation_is_renamed_archived_and_restored(client: Client) -> None:
    await chat(client, "a")
    read = await client.request("GET", "/api/conversations/a")
    etag = read.headers["etag"]
    assert etag == f'"{read.json()["etag"]}"'
    renamed = await client.request("PATCH", "/api/conversations/a", {"title": " New "}, headers={"If-Match": etag})
    assert (renamed.status, renamed.json()["title"]) == (200, "New")
    stale = await client.request("PATCH", "/api/conversations/a", {"title": "Newer"}, headers={"If-Match": etag})
    assert (stale.status, stale.json()["code"]) == (409, "conflict")
    anyway = await client.request("PATCH", "/api/conversations/a", {"archived": True}, headers={"If-Match": "*"})
    assert anyway.json()["archived"] is True
    assert (await client.request("GET", "/api/conversations")).json()["items"] == []
    archived = (await client.request("GET", "/api/conversations", query="archived=true")).json()["items"]
    assert [item["id"] for item in archived] == ["a"]
    assert (await client.request("PATCH", "/api/conversations/a", {"archived": False})).json()["archived"] is False


@pytest.mark.parametrize("body", [{}, {"title": ""}, {"title": "  "}, {"title": "x" * 201}, {"titel": "x"}, [], 3])
async def test_a_patch_that_says_nothing_sensible_is_refused(client: Client, body: Any) -> None:
    await chat(client, "a")
    reply = await client.request("PATCH", "/api/conversations/a", body)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")


async def test_conversations_are_archived_and_deleted_together(client: Client, stranger: Client) -> None:
    await chat(client, "a")
    await chat(client, "b")
    await chat(stranger, "a")
    assert (await client.request("POST", "/api/conversations/archive")).json() == {"archived": 2}
    assert (await client.request("DELETE", "/api/conversations/b")).status == 204
    assert (await client.request("DELETE", "/api/conversations")).json() == {"deleted": 1}
    assert (await client.request("GET", "/api/conversations/a")).status == 404
    assert (await stranger.request("GET", "/api/conversations/a")).status == 200


async def test_what_was_mirrored_of_a_conversation_is_deleted_with_it(client: Client, stages: Stages) -> None:
    records = ShadowRecords(stages.store, keep=100)
    trials: dict[str, ConversationKey] = {}
    for name in ("a", "b", "c"):
        await chat(client, name)
        trial = MirroredTrial(candidate=CandidateRecord(name="v2"), turn_id=f"shadow_{ULID()}.{ULID()}")
        turn_id = f"{name}.{ULID()}"
        one = MirroredTurn(tenant_id="default", user_id="ana", turn_id=turn_id, at=1.0, trials=(trial,))
        trials[name] = one.trial_key(trial).conversation
        await stages.store.ensure_conversation(trials[name])
        await records.save(one)

    async def left() -> list[str]:
        found = (await stages.store.list_records("default", KIND)).items
        names = sorted(read_record(record).turn_id[0] for record in found)
        there = []
        for name, key in trials.items():
            with contextlib.suppress(NotFound):
                await stages.store.get_conversation(key)
                there.append(name)
        assert there == names
        return names

    assert await left() == ["a", "b", "c"]
    assert (await client.request("DELETE", "/api/conversations/b")).status == 204
    assert await left() == ["a", "c"]
    assert (await client.request("DELETE", "/api/conversations")).json() == {"deleted": 2}
    assert await left() == []


async def test_messages_have_the_ai_sdks_shape_and_take_reactions(client: Client) -> None:
    await chat(client, "a", "Hi there")
    listed = (await client.request("GET", "/api/conversations/a/messages")).json()["items"]
    assert [(m["role"], m["parts"]) for m in listed] == [
        ("user", [{"type": "text", "text": "Hi there"}]),
        ("assistant", [{"type": "text", "text": "Hello there"}]),
    ]
    assert listed[1]["metadata"]["status"] == "complete"
    newest = (await client.request("GET", "/api/conversations/a/messages", query="order=desc&limit=1")).json()
    assert newest["items"] == [listed[1]]
    path = f"/api/conversations/a/messages/{listed[1]['id']}"
    for reaction in ("up", "down", None):
        reply = await client.request("PATCH", path, {"reaction": reaction})
        assert (reply.status, reply.json()["metadata"]["reaction"]) == (200, reaction)
    assert (await client.request("PATCH", path, {"reaction": "sideways"})).status == 422
    assert (await client.request("PATCH", path, {})).status == 422
    assert (await client.request("PATCH", f"{path}x", {"reaction": "up"})).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/conversations/{c}", None),
        ("PATCH", "/api/conversations/{c}", {"title": "Mine"}),
        ("DELETE", "/api/conversations/{c}", None),
        ("GET", "/api/conversations/{c}/messages", None),
        ("PATCH", "/api/conversations/{c}/messages/{m}", {"reaction": "up"}),
        ("POST", "/api/chat/{c}/stop", None),
        ("GET", "/api/turns/{t}", None),
        ("GET", "/api/turns/{t}/events", None),
    ],
)
async def test_what_belongs_to_others_looks_like_what_does_not_exist(
    client: Client, stages: Stages, method: str, path: str, body: Any
) -> None:
    await chat(client, "a")
    turn_id = stages.turns.runs[0].turn_id
    message = (await client.request("GET", "/api/conversations/a/messages")).json()["items"][1]["id"]
    theirs = path.format(c="a", t=turn_id, m=message)
    missing = path.format(c="none", t="none.01ARZ3NDEKTSV4RRFFQ69G5FAV", m="msg_none")
    odd = path.format(c="a%20b", t="odd", m="odd")
    for headers in ({"x-dev-user": "bob"}, {"x-dev-user": "ana", "x-dev-tenant": "elsewhere"}):
        someone = Client(client.app, headers)
        answers = [await someone.request(method, asked, body) for asked in (theirs, missing, odd)]
        bodies = [{**reply.json(), "request_id": ""} for reply in answers]
        assert [reply.status for reply in answers] == [404, 404, 404]
        assert bodies[0] == bodies[1] == bodies[2]
    assert (await client.request("GET", "/api/conversations/a")).status == 200


# The service's own routes


async def test_health_needs_nothing(stages: Stages) -> None:
    services = IngressServices(**{**vars(stages.services()), "store": None, "authenticator": None})
    assert (await Client(create_app(services)).request("GET", "/health")).json() == {"status": "ok"}


async def test_ready_reports_each_dependency(client: Client) -> None:
    reply = await client.request("GET", "/ready")
    assert reply.status == 200
    body = reply.json()
    assert body["status"] == "ready"
    assert {name: d["state"] for name, d in body["dependencies"].items()} == dict.fromkeys(
        ("store", "models", "prompts", "tools", "files"), "up"
    )
    assert body["dependencies"]["models"]["simulated"] is True
    assert [s["name"] for s in body["dependencies"]["tools"]["servers"]] == ["crm", "hr"]


async def test_a_tool_server_that_is_down_degrades_and_does_not_stop(client: Client, stages: Stages) -> None:
    stages.tools.states[1] = ToolServerState(name="hr", state="down", error="connection refused")
    reply = await client.request("GET", "/ready")
    assert (reply.status, reply.json()["status"]) == (200, "degraded")
    assert reply.json()["dependencies"]["tools"]["servers"][1] == {
        "name": "hr",
        "state": "down",
        "tools": 0,
        "error": "connection refused",
        "quarantined": [],
    }


@pytest.mark.parametrize("slow", [False, True])
async def test_without_files_the_replica_goes_on_and_says_so(
    stages: Stages, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.ingress.readiness.CHECK_TIMEOUT_S", 0.5)

    class Away(FilesystemFiles):
        async def check(self) -> None:
            if slow:
                await asyncio.Event().wait()
            raise Overloaded("The disk is full.")

    services = stages.services()
    away = Away(services.settings.data_dir, services.settings.files)
    client = Client(create_app(IngressServices(**{**vars(services), "files": away})))
    reply = await client.request("GET", "/ready")
    assert (reply.status, reply.json()["status"]) == (200, "degraded")
    found = reply.json()["dependencies"]["files"]
    said = "Where files are kept does not answer." if slow else "The disk is full."
    assert (found["state"], found["error"]) == ("degraded", said)


@pytest.mark.parametrize("which", ["store", "models", "prompts", "tools", "extra"])
async def test_a_critical_dependency_that_is_down_makes_503(
    stages: Stages, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = StageUnavailable("It is away.")

    async def away() -> None:
        raise down

    checks = {"extra": away} if which == "extra" else {}
    if which == "store":
        monkeypatch.setattr(stages.store, "check", away)
    elif which != "extra":
        getattr(stages, which).failure = down
    services = IngressServices(**{**vars(stages.services()), "checks": checks})
    reply = await Client(create_app(services)).request("GET", "/ready")
    assert (reply.status, reply.json()["status"]) == (503, "unavailable")
    assert reply.json()["dependencies"][which]["error"] == "It is away."
    assert reply.headers["retry-after"] == "1"


async def test_a_dependency_that_hangs_is_down(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.ingress.readiness.CHECK_TIMEOUT_S", 0.02)

    async def hang() -> None:
        await asyncio.Event().wait()

    services = IngressServices(**{**vars(stages.services()), "checks": {"slow": hang}})
    reply = await Client(create_app(services)).request("GET", "/ready")
    assert reply.status == 503
    assert "0.02 s" in reply.json()["dependencies"]["slow"]["error"]


async def test_no_model_at_all_is_not_ready(client: Client, stages: Stages) -> None:
    stages.models.listing = ModelCatalog(models=())
    assert (await client.request("GET", "/ready")).json()["dependencies"]["models"]["state"] == "down"


async def test_a_draining_replica_is_not_ready(app: FastAPI, client: Client) -> None:
    await app.state.drain()
    reply = await client.request("GET", "/ready")
    assert (reply.status, reply.json()["status"]) == (503, "draining")
    assert (await client.request("GET", "/health")).status == 200


async def test_a_replica_that_is_replaced_takes_requests_and_shows_what_runs_to_its_end(
    app: FastAPI, client: Client, stages: Stages
) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    running = await client.open("POST", "/api/chat", asking())
    await running.text_until("text-delta")
    await app.state.send_away()
    assert (await client.request("GET", "/ready")).status == 503
    gate.set()
    await running.text_until("[DONE]")
    running.disconnect()
    assert (await client.request("POST", "/api/chat", asking("More", "c2"))).status == 200


@pytest.mark.parametrize("live", [True, False])
async def test_a_server_that_stops_ends_its_streams_with_an_error_that_says_to_come_back(
    app: FastAPI, client: Client, stages: Stages, live: bool
) -> None:
    gate = asyncio.Event()
    stages.turns.live = live
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    running = await client.open("POST", "/api/chat", asking())
    seen = await running.text_until("text-delta")
    turn_id = re.findall(r"id: (\S+):1", seen)[0]
    events = await client.open("GET", f"/api/turns/{turn_id}/events")
    await events.text_until("text.delta")
    await app.state.drain()
    assert "resume" in await running.text_until('"type":"error"')
    ended = await events.text_until('"type":"error"')
    assert '"code":"overloaded"' in ended
    assert '"retryable":true' in ended
    gate.set()
    for stream in (running, events):
        stream.disconnect()


async def test_a_server_that_stops_takes_no_messages(app: FastAPI, client: Client) -> None:
    await app.state.drain()
    refused = await client.request("POST", "/api/chat", asking("More", "c2"))
    assert (refused.status, refused.json()["retryable"], refused.headers["retry-after"]) == (503, True, "1")
    assert (await client.request("GET", "/api/conversations/c2")).status == 404


async def test_the_end_of_the_lifespan_drains(app: FastAPI, client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        async with app.router.lifespan_context(app):
            pass
        assert (await socket.frame())["type"] == "reconnect"


async def test_capabilities_follow_the_caller(client: Client) -> None:
    body = (await client.request("GET", "/api/capabilities")).json()
    assert [model["id"] for model in body["models"]["models"]] == ["small", "large"]
    assert body["models"]["default_model_id"] == "small"
    assert body["models"]["simulated"] is True
    assert "simulated" in body["models"]["notice"]
    assert [tool["name"] for tool in body["tools"]] == ["crm.find_account"]
    assert body["limits"]["ws_frame_bytes"] == 65_536
    hr = (await client.request("GET", "/api/capabilities", headers={"x-dev-roles": "hr"})).json()
    assert [tool["name"] for tool in hr["tools"]] == ["hr.leave_balance"]


async def test_the_catalog_is_asked_once_for_many_turns(client: Client, stages: Stages) -> None:
    for name in ("a", "b", "c"):
        await chat(client, name)
    assert stages.models.asked == 1


async def test_turns_run_while_the_catalog_cannot_be_had(client: Client, stages: Stages) -> None:
    stages.models.failure = StageUnavailable("away")
    await chat(client, "a")
    assert (await client.request("GET", "/api/capabilities")).status == 503
    stages.models.failure = None
    assert (await client.request("GET", "/api/capabilities")).status == 200
    stages.models.failure = StageUnavailable("away again")
    assert (await client.request("GET", "/api/capabilities")).status == 200, "the answer from before is still good"


async def test_authz_says_who_and_what(app: FastAPI) -> None:
    nothing_said = {"requests_per_minute": None, "concurrent_turns": None, "tokens_per_minute": None}
    reply = await Client(app).request("GET", "/api/authz", headers={"authorization": "Bearer ignored"})
    assert reply.json() == {
        "tenant_id": "default",
        "user_id": "dev",
        "roles": ["sales"],
        "tools": ["crm.find_account"],
        "terms": {
            "tools": None,
            "denied_tools": [],
            "model_id": None,
            "user_limits": nothing_said,
            "tenant_limits": nothing_said,
        },
    }
    none = await Client(app).request("GET", "/api/authz", headers={"x-dev-roles": ""})
    assert (none.json()["roles"], none.json()["tools"]) == ([], [])


# Every request


async def test_every_response_carries_the_security_headers(client: Client) -> None:
    for path, status in (("/health", 200), ("/nothing", 404), ("/api/turns/x", 404)):
        reply = await client.request("GET", path)
        assert reply.status == status
        assert reply.headers["content-security-policy"] == CSP
        assert "unsafe" not in CSP
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert "strict-transport-security" not in reply.headers


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("", False), ("a b", False), ("x" * 129, False)])
async def test_a_sane_request_id_is_kept_and_any_other_replaced(client: Client, given: str, kept: bool) -> None:
    reply = await client.request("GET", "/api/turns/x", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) is kept
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


async def test_the_request_id_reaches_the_turn(client: Client, stages: Stages) -> None:
    await client.request("POST", "/api/chat", asking(), headers={"x-request-id": "edge-1"})
    assert (await stages.store.get_turn(stages.turns.runs[0])).request_id == "edge-1"


async def test_serves_own_headers_do_not_come_in_from_outside(stages: Stages) -> None:
    app = create_app(stages.services())
    seen: list[str] = []

    async def show(request: Request) -> Response:
        seen.extend(request.headers)
        return Response()

    app.router.routes.insert(0, Route("/seen", show))
    await Client(app).request(
        "GET",
        "/seen",
        headers={"X-Request-Timeout-Seconds": "1", "x-request-disconnect-disabled": "?1", "x-other": "1"},
    )
    assert "x-other" in seen
    assert not {"x-request-timeout-seconds", "x-request-disconnect-disabled"} & set(seen)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/chat", 405, "invalid_input"),
        ("PUT", "/api/conversations/a", 405, "invalid_input"),
    ],
)
async def test_the_frameworks_refusals_are_problems_too(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    reply = await client.request(method, path)
    assert (reply.status, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/problem+json"
    assert status != 405 or reply.headers["allow"]


async def test_json_that_is_none_is_400(client: Client) -> None:
    reply = await client.request("POST", "/api/chat", raw=b"{")
    assert (reply.status, reply.json()["code"]) == (400, "invalid_input")


async def test_validation_lists_the_fields_and_does_not_repeat_the_input(client: Client) -> None:
    reply = await client.request("POST", "/api/chat", {"messages": "top-secret", "trigger": 1})
    assert reply.status == 422
    assert {error["field"] for error in reply.json()["errors"]} == {"body.messages", "body.trigger"}
    assert b"top-secret" not in reply.body


@pytest.mark.parametrize(
    ("method", "path", "limit"), [("PATCH", "/api/conversations/a", 1_000), ("POST", "/api/chat", 3_000)]
)
async def test_a_body_is_limited_by_what_it_says_and_by_what_it_is(
    stages: Stages, method: str, path: str, limit: int
) -> None:
    settings = Settings(store="memory", limits=LimitSettings(body_bytes=1_000, chat_body_bytes=3_000))
    client = Client(create_app(stages.services(settings)))
    large = b"x" * (limit + 1)
    said = await client.request(method, path, raw=b"{}", headers={"content-length": str(limit + 1)})
    streamed = await client.request(method, path, raw=large)
    for reply in (said, streamed):
        assert (reply.status, reply.json()["code"]) == (413, "too_large")
        assert f"{limit} bytes" in reply.json()["detail"]
    allowed = await client.request(method, path, raw=large[:limit], headers={"content-length": str(limit)})
    assert allowed.status == 400, "read, and found to be no JSON"


@pytest.mark.parametrize("body", [r'{"title":"half \ud800"}', r'{"\ud800":1}', r'{"title":"a","\udfff":"\ud83d"}'])
async def test_half_a_surrogate_pair_in_a_patch_is_invalid_input(client: Client, body: str) -> None:
    await chat(client, "a")
    reply = await client.request("PATCH", "/api/conversations/a", raw=body.encode())
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")
    reaction = await client.request("PATCH", "/api/conversations/a/messages/m", raw=rb'{"reaction":"\ud800"}')
    assert (reaction.status, reaction.json()["code"]) == (422, "invalid_input")


async def test_a_bug_is_a_generic_500_and_logged(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(stages.tools, "tools_for", broken)
    with structlog.testing.capture_logs() as logs:
        reply = await Client(create_app(stages.services())).request("GET", "/api/authz")
    assert (reply.status, reply.json()["code"], reply.json()["retryable"]) == (500, "internal", False)
    assert "ZeroDivisionError" in reply.json()["detail"]
    assert b"secret" not in reply.body
    assert reply.headers["x-request-id"] == reply.json()["request_id"]
    assert any(entry["event"] == "request_failed" for entry in logs)


async def test_requests_are_counted_and_logged_by_template(client: Client, stages: Stages) -> None:
    with structlog.testing.capture_logs() as logs:
        await client.request("GET", "/api/turns/secret-id", query="token=secret", headers={"authorization": "Bearer x"})
        await client.request("GET", "/api/conversations/secret-id/messages")
        await client.request("GET", "/health")
        await client.request("GET", "/secret-path")
    counted = {key[1:] for key in stages.metrics.counts if key[0] == "parley_http_requests_total"}
    assert counted == {
        ("/api/turns/{turn_id}", "404"),
        ("/api/conversations/{conversation_id}/messages", "404"),
        ("/health", "200"),
        ("(none)", "404"),
    }
    requests = [entry for entry in logs if entry["event"] == "request"]
    assert len(requests) == 3, "not for /health"
    assert "secret" not in json.dumps(requests)


async def test_only_configured_origins_may_read_or_act(stages: Stages) -> None:
    settings = Settings(store="memory", cors_origins=("https://app.example",))
    client = Client(create_app(stages.services(settings)))
    friend, foe = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert (await client.request("OPTIONS", "/api/chat", headers=friend | preflight)).status == 200
    assert (await client.request("OPTIONS", "/api/chat", headers=foe | preflight)).status == 400
    allowed = await client.request("GET", "/api/authz", headers=friend)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in (await client.request("GET", "/api/authz", headers=foe)).headers

    sdks = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-stainless-runtime-version,x-stainless-timeout"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": sdks}
    sdk = await client.request("OPTIONS", "/v1/chat/completions", headers={**friend, **asked})
    assert sdk.status == 200, "what OpenAI's SDK sends from a page"
    told = await client.request("GET", "/v1/models", headers=friend)
    assert "x-should-retry" in told.headers["access-control-expose-headers"]
    assert (await client.request("DELETE", "/api/conversations", headers=friend)).status == 200
    refused = await client.request("DELETE", "/api/conversations", headers=foe)
    assert (refused.status, refused.json()["code"]) == (403, "not_permitted")
    same = {"origin": "http://testserver"}
    assert (await client.request("DELETE", "/api/conversations", headers=same)).status == 200


@pytest.mark.parametrize("headers", [{"x-dev-user": ""}, {"x-dev-tenant": "a/b"}, {"x-dev-roles": "a b"}])
async def test_an_identity_that_cannot_be_is_401(app: FastAPI, headers: dict[str, str]) -> None:
    reply = await Client(app).request("GET", "/api/authz", headers=headers)
    assert (reply.status, reply.json()["code"]) == (401, "unauthenticated")


# Documents and the page


async def test_every_route_is_described_with_an_example(client: Client) -> None:
    document = (await client.request("GET", "/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert "ProblemView" in schemas
    assert {"/api/chat", "/api/turns/{turn_id}/events", "/ready", "/api/conversations/archive"} <= set(
        document["paths"]
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            if (body := operation.get("requestBody")) is not None:
                assert has_example(next(iter(body["content"].values())), schemas), where
            ok = next(reply for status, reply in operation["responses"].items() if status.startswith("2"))
            for content in ok.get("content", {}).values():
                assert has_example(content, schemas), where


def has_example(content: dict[str, Any], schemas: dict[str, Any]) -> bool:
    if "example" in content or "examples" in content:
        return True
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    return bool(schema.get("examples")) or any("examples" in p for p in schema.get("properties", {}).values())


async def test_docs_load_nothing_from_outside(client: Client) -> None:
    page = await client.request("GET", "/docs")
    assert page.status == 200
    assert b"http" not in page.body.replace(b"http-equiv", b"")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    start = await client.request("GET", "/docs/assets/start.js")
    assert b"openapi.json" in start.body
    for odd in ("../app.py", "..%2fapp.py", "other.js"):
        assert (await client.request("GET", f"/docs/assets/{odd}")).status == 404


async def test_the_page_and_its_files_are_served(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>hello")
    (tmp_path / "app.js").write_text("1")
    services = IngressServices(**{**vars(stages.services()), "web_dir": tmp_path})
    client = Client(create_app(services))
    page = await client.request("GET", "/")
    assert (page.status, page.body) == (200, b"<!doctype html>hello")
    assert page.headers["cache-control"] == "no-cache"
    script = await client.request("GET", "/assets/app.js")
    assert (script.status, script.headers["cache-control"]) == (200, "no-cache")
    again = await client.request("GET", "/assets/app.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status == 304
    assert (await client.request("GET", "/assets/none.js")).json()["code"] == "not_found"


async def test_without_a_page_the_rest_works(stages: Stages, tmp_path: Path) -> None:
    services = IngressServices(**{**vars(stages.services()), "web_dir": tmp_path / "none"})
    client = Client(create_app(services))
    assert (await client.request("GET", "/")).status == 404
    assert (await client.request("GET", "/health")).status == 200
