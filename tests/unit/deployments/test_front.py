"""What stands before Serve: headers that would let a client steer it do not get through, and one request id goes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.environment import ray_environment
from deployments.front import Front, middlewares
from serve_app.ingress.edge import STRIPPED_HEADERS


async def passed(kind: str, headers: list[tuple[bytes, bytes]], answer: list[tuple[bytes, bytes]]) -> tuple[Any, Any]:
    """The headers the application sees, and the ones the client gets."""
    seen: list[tuple[bytes, bytes]] = []
    sent: list[Message] = []

    async def application(scope: Scope, _: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await Front(application)({"type": kind, "headers": headers}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return seen, sent[0]["headers"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_headers_that_steer_serve_do_not_get_through(kind: str) -> None:
    steering = [(name.upper() if index else name, b"1") for index, name in enumerate(sorted(STRIPPED_HEADERS))]
    assert steering
    seen, _ = await passed(kind, [*steering, (b"accept", b"*/*")], [])
    assert seen == [(b"accept", b"*/*")]


async def test_a_request_id_that_is_none_is_dropped_and_a_good_one_kept() -> None:
    assert (await passed("http", [(b"x-request-id", b"bad id\r\n")], []))[0] == []
    good = [(b"x-request-id", b"req-0123456789abcdef")]
    assert (await passed("http", good, []))[0] == good


async def test_a_response_has_one_request_id() -> None:
    _, got = await passed("http", [], [(b"X-Request-Id", b"a"), (b"etag", b"e"), (b"x-request-id", b"b")])
    assert got == [(b"X-Request-Id", b"a"), (b"etag", b"e")]


@pytest.mark.parametrize(
    ("status", "content_type", "given"),
    [
        (500, b"text/plain; charset=utf-8", 503),
        (500, b"application/problem+json", 500),
        (404, b"text/plain", 404),
    ],
)
async def test_serves_own_failure_becomes_a_problem_that_says_to_try_again(
    status: int, content_type: bytes, given: int
) -> None:
    answer = [(b"X-Request-Id", b"req-1"), (b"Content-Type", content_type), (b"content-length", b"21")]

    async def application(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": b"Internal ", "more_body": True})
        await send({"type": "http.response.body", "body": b"Server Error"})

    sent = await answered(application, {"type": "http", "headers": []})
    start, *bodies = sent
    assert start["status"] == given
    if given != 503:
        assert b"".join(body["body"] for body in bodies) == b"Internal Server Error"
        return
    (body,) = bodies
    headers = dict(start["headers"])
    assert (headers[b"content-type"], headers[b"retry-after"]) == (b"application/problem+json", b"1")
    assert int(headers[b"content-length"]) == len(body["body"])
    problem = json.loads(body["body"])
    assert (problem["retryable"], problem["request_id"]) == (True, "req-1")


async def fails(_: Scope, __: Receive, ___: Send) -> None:
    raise ConnectionError("the replica is gone")


async def test_what_serve_leaves_to_the_server_is_answered_here() -> None:
    sent = await answered(fails, {"type": "http", "headers": []})
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "overloaded")


async def test_a_handshake_that_serve_fails_is_told_to_come_back() -> None:
    scope = {"type": "websocket", "headers": [], "extensions": {"websocket.http.response": {}}}
    sent = await answered(fails, scope)
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 503


async def test_a_failure_after_the_answer_has_begun_stays_the_servers() -> None:
    async def breaks(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await answered(breaks, {"type": "http", "headers": []})
    with pytest.raises(ConnectionError):
        await answered(fails, {"type": "websocket", "headers": [], "extensions": {}})


async def answered(application: ASGIApp, scope: dict[str, Any]) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await Front(application)(scope, receive, send)
    return sent


def test_serve_is_told_to_install_it(tmp_path: Any) -> None:
    installed: list[Any] = [middleware.cls for middleware in middlewares()]
    assert installed == [Front]
    assert "deployments.front" in ray_environment(tmp_path)["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
