"""The rest of the HTTP API on the running graph: conversations, what the server says about itself, and how it fails."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.e2e.protocol_client import Api, check_problem
from tests.e2e.server import ParleyServer


async def made(api: Api, *ids: str) -> None:
    """Conversations of these ids, in this order."""
    for conversation_id in ids:
        async with api.socket() as chat:
            await chat.start_session(conversation_id)


async def test_conversations_are_listed_in_pages_newest_first(api: Api) -> None:
    names = [f"c-{number}" for number in range(7)]
    await made(api, *names)
    listed: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = await api.get("/api/conversations", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        assert len(page["items"]) <= 2
        listed += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert listed == names[::-1]
    assert check_problem(await api.http.get("/api/conversations", params={"cursor": "forged"}))["status"] in {400, 422}
    assert check_problem(await api.http.get("/api/conversations", params={"limit": 0}))["errors"]


async def test_a_conversation_is_renamed_archived_restored_and_deleted(api: Api) -> None:
    await made(api, "one", "two")
    read = await api.http.get("/api/conversations/one")
    etag = read.headers["etag"]
    renamed = await api.http.patch("/api/conversations/one", json={"title": " Renewal "}, headers={"If-Match": etag})
    assert renamed.json()["title"] == "Renewal"
    stale = await api.http.patch("/api/conversations/one", json={"title": "Again"}, headers={"If-Match": etag})
    assert check_problem(stale)["code"] == "conflict"

    await api.http.patch("/api/conversations/one", json={"archived": True})
    assert [item["id"] for item in (await api.get("/api/conversations"))["items"]] == ["two"]
    archived = await api.get("/api/conversations", params={"archived": "true"})
    assert [item["id"] for item in archived["items"]] == ["one"]
    await api.http.patch("/api/conversations/one", json={"archived": False})
    assert len((await api.get("/api/conversations"))["items"]) == 2

    assert (await api.http.delete("/api/conversations/one")).status_code == 204
    assert check_problem(await api.http.get("/api/conversations/one"))["code"] == "not_found"
    assert (await api.http.post("/api/conversations/archive")).json() == {"archived": 1}
    assert (await api.get("/api/conversations"))["items"] == []
    assert (await api.http.delete("/api/conversations")).json() == {"deleted": 1}
    assert (await api.get("/api/conversations", params={"archived": "true"}))["items"] == []


async def test_deleting_everything_leaves_other_users_alone(graph: ParleyServer, api: Api) -> None:
    await made(api, "mine")
    async with Api.as_new_user(graph.url) as other:
        await made(other, "mine")
        assert (await other.http.delete("/api/conversations")).json() == {"deleted": 1}
    assert [item["id"] for item in (await api.get("/api/conversations"))["items"]] == ["mine"]


async def test_a_reaction_is_kept_and_can_be_taken_back(api: Api) -> None:
    stream = await api.chat("Find the account Contoso", "liked")
    path = f"/api/conversations/liked/messages/{stream.message_id}"
    for reaction in ("up", "down", None):
        answer = await api.http.patch(path, json={"reaction": reaction})
        assert answer.json()["metadata"]["reaction"] == reaction
        stored = {message["id"]: message for message in await api.messages("liked")}
        assert stored[stream.message_id]["metadata"]["reaction"] == reaction
    assert check_problem(await api.http.patch(path, json={"reaction": "sideways"}))["errors"]


async def test_messages_come_in_pages_in_both_orders(api: Api) -> None:
    for number in range(3):
        await api.chat(f"Number {number}", "long", model_id="sim-t0-i0-n3")
    first = await api.get("/api/conversations/long/messages", params={"limit": 4})
    rest = await api.get("/api/conversations/long/messages", params={"limit": 4, "cursor": first["next_cursor"]})
    ids = [message["id"] for message in first["items"] + rest["items"]]
    assert len(ids) == 6
    assert rest["next_cursor"] is None
    newest = await api.get("/api/conversations/long/messages", params={"order": "desc"})
    assert [message["id"] for message in newest["items"]] == ids[::-1]


async def test_capabilities_name_models_tools_and_limits_and_say_that_the_model_is_simulated(api: Api) -> None:
    can = await api.get("/api/capabilities")
    assert can["models"]["simulated"] is True
    assert "simulated" in can["models"]["notice"]
    assert can["models"]["default_model_id"] in {model["id"] for model in can["models"]["models"]}
    tools = {tool["name"]: tool for tool in can["tools"]}
    assert set(tools) == {f"crm.{name}" for name in (
        "find_account", "list_opportunities", "get_opportunity", "update_opportunity",
    )}  # fmt: skip
    assert all(tool["input_schema"]["type"] == "object" and tool["description"] for tool in tools.values())
    assert can["limits"]["ws_frame_bytes"] == 65_536
    assert can["limits"]["ws_messages_per_s"] == 20


async def test_authz_says_who_is_asking_and_what_they_may_use(graph: ParleyServer) -> None:
    async with Api.as_user(graph.url, "ann", "hr", "contoso") as api:
        access = await api.get("/api/authz")
    assert (access["user_id"], access["tenant_id"], access["roles"]) == ("ann", "contoso", ["hr"])
    assert access["tools"]
    assert all(tool.startswith("hr.") for tool in access["tools"])


async def test_health_and_readiness_need_no_identity(graph: ParleyServer) -> None:
    async with httpx2.AsyncClient(base_url=graph.url, trust_env=False) as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        ready = (await http.get("/ready")).json()
    assert ready["status"] == "ready"
    assert {name: view["state"] for name, view in ready["dependencies"].items()} == {
        "store": "up", "models": "up", "prompts": "up", "tools": "up", "files": "up",
    }  # fmt: skip
    assert ready["dependencies"]["models"]["simulated"] is True
    servers = {server["name"]: server for server in ready["dependencies"]["tools"]["servers"]}
    assert {name: server["tools"] for name, server in servers.items()} == {"crm": 4, "hr": 3}


async def test_the_openapi_document_has_an_example_for_every_json_body(api: Api) -> None:
    document = await api.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]

    def has_example(content: dict[str, object]) -> bool:
        text = json.dumps(content)
        if '"example' in text:
            return True
        schema = content.get("schema")
        name = str(schema.get("$ref", "")).rpartition("/")[2] if isinstance(schema, dict) else ""
        return '"examples"' in json.dumps(schemas.get(name, {}))

    lacking = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), f"{method} {path}"
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
            lacking += [
                f"{method} {path}"
                for body in bodies + answers
                for content in body.get("content", {}).values()
                if not has_example(content) and "$ref" in json.dumps(content)
            ]
    shown = {name for name in lacking if "messages" not in name and name != "get /api/conversations"}
    assert shown == set(), "pages are made of parts that have examples; everything else has its own"
    assert {"/api/chat", "/api/chat/{conversation_id}/stream", "/api/turns/{turn_id}/events", "/ready"} <= set(
        document["paths"]
    )


async def test_the_api_page_loads_nothing_from_elsewhere(api: Api) -> None:
    page = await api.http.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/nothing", None, 404),
        ("PUT", "/api/conversations", None, 405),
        ("POST", "/api/chat", b"{not json", 400),
        ("POST", "/api/chat", b"[]", 422),
        ("POST", "/api/chat", b'{"messages": []}', 422),
        ("POST", "/api/chat", b'{"messages": [{"role": "assistant", "parts": []}]}', 422),
        ("POST", "/api/chat", b'{"id": "../etc", "messages": [{"role": "user", "parts": []}]}', 422),
        ("PATCH", "/api/conversations/x", b'{"tenant_id": "other"}', 422),
        ("PATCH", "/api/conversations/x", b'{"title": ""}', 422),
        ("PATCH", "/api/conversations/x", b'{"title": "' + b"x" * 1_100_000 + b'"}', 413),
    ],
)
async def test_failures_are_problems_with_a_code(
    api: Api, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = await api.http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    if status != 405:
        check_problem(answer)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_request_id_of_the_client_is_kept_and_a_bad_one_replaced(api: Api) -> None:
    kept = await api.http.get("/health", headers={"X-Request-Id": "abc-123"})
    assert kept.headers.get_list("x-request-id") == ["abc-123"]
    made_up = await api.http.get("/health", headers={"X-Request-Id": "not; an id"})
    assert made_up.headers["x-request-id"] not in {"", "not; an id"}
    assert (await api.http.get("/health")).headers["x-request-id"] != (await api.http.get("/health")).headers[
        "x-request-id"
    ]


async def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/", "/health", "/api/conversations", "/api/nothing", "/docs", "/openapi.json"):
        answer = await api.http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["x-frame-options"] == "DENY", path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert "referrer-policy" in answer.headers, path
        if path.startswith("/api/"):
            assert "no-store" in answer.headers["cache-control"], path


async def test_another_origin_may_not_write(api: Api) -> None:
    answer = await api.http.delete("/api/conversations", headers={"Origin": "https://evil.example"})
    assert check_problem(answer)["code"] == "not_permitted"


async def test_headers_that_would_steer_serve_itself_have_no_effect(api: Api) -> None:
    async with api.posting(
        "Count", model_id="sim-t0-i20-n100", headers={"x-request-timeout-seconds": "0.5"}
    ) as response:
        assert response.status_code == 200
        text = "".join([piece async for piece in response.aiter_text()])
    assert text.rstrip().endswith("data: [DONE]")


async def test_a_bad_development_identity_is_unauthenticated(graph: ParleyServer) -> None:
    async with httpx2.AsyncClient(base_url=graph.url, trust_env=False) as http:
        answer = await http.get("/api/authz", headers={"X-Dev-User": "no spaces allowed"})
    assert check_problem(answer)["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
