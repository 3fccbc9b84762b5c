"""Odd ``Host`` headers and oversized heads, raw over a real socket: none opens a route or breaks the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from serve_app.ingress.app import create_app
from serve_app.ingress.heads import Heads
from serve_app.settings import LimitSettings, Settings
from tests.security.people import ANNA, TableAuthenticator, token_settings
from tests.simulators.ingress.conftest import Server, serving
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import make_stages

ODD_HOSTS = (
    "",
    " ",
    "/",
    "/health",
    "localhost/health?",
    "localhost/health#",
    "localhost\\health",
    "?x",
    "#",
    "user@localhost",
    "user:pw@localhost",
    "localhost:",
    "localhost:x",
    "localhost:99999",
    "localhost:-1",
    "localhost:80:80",
    "local host",
    "a,b",
    "[::1",
    "::1",
    "[zz]",
    "%2e%2e",
    "..",
    "-",
    "<script>",
    "exämple",
    "a" * 300,
    "*",
    "null\tx",
)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    stages = make_stages()
    people = TableAuthenticator()
    people.add("t-anna", ANNA)
    services = replace(stages.services(token_settings()), authenticator=people)
    async with serving(services, stages) as running:
        yield running


async def answer(server: Server, *lines: str, encoding: str = "utf-8") -> tuple[int, str]:
    """The status and all of the answer to a request that is nothing but these lines; 0 where the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode(encoding))
        got = (await asyncio.wait_for(reader.read(), 10)).decode("utf-8", "replace")
    except ConnectionError:
        return 0, ""
    finally:
        writer.close()
    return (int(got.split(" ", 2)[1]) if got else 0), got


async def test_no_host_opens_a_route_or_turns_up_in_an_answer(server: Server) -> None:
    for host in ODD_HOSTS:
        for path in ("/api/authz", "/api/conversations", "/api/chat"):
            status, text = await answer(server, f"GET {path} HTTP/1.1", f"Host: {host}")
            assert status in {0, 400, 401, 403}, (host, path, text)
            assert "location:" not in text.lower()
            assert "set-cookie:" not in text.lower()
    assert (await answer(server, "GET /health HTTP/1.1", "Host: localhost"))[0] == 200


async def test_a_good_token_does_not_help_a_host_that_cannot_be_read(server: Server) -> None:
    good = ("GET /api/authz HTTP/1.1", "Authorization: Bearer t-anna")
    assert (await answer(server, *good, "Host: localhost"))[0] == 200
    for host in ODD_HOSTS[2:]:
        status, text = await answer(server, *good, f"Host: {host}")
        assert status in {0, 400}, (host, text)


@pytest.mark.parametrize(
    "lines",
    [
        ("GET /api/authz HTTP/1.1", "Host: localhost", "Host: evil.example"),
        ("GET /api/authz HTTP/1.1", "Host: localhost", "host: localhost"),
        ("GET /api/authz HTTP/1.1", "Host: localhost", "Authorization: Bearer t-anna", "Authorization: Bearer t-bert"),
        ("GET http://evil.example/api/authz HTTP/1.1", "Host: localhost"),
        ("GET //localhost/api/authz HTTP/1.1", "Host: localhost"),
        ("GET /api/authz/../authz HTTP/1.1", "Host: localhost"),
        ("GET /health/../api/authz HTTP/1.1", "Host: localhost"),
        ("GET /health%2f..%2fapi%2fauthz HTTP/1.1", "Host: localhost"),
        ("GET /api/authz HTTP/1.1", "Host: localhost", "X-Forwarded-Host: localhost/health"),
        ("GET /api/authz HTTP/1.1", "Host: localhost", "X-Original-URL: /health", "X-Rewrite-URL: /health"),
        ("GET /api/authz HTTP/1.1", "Host: localhost", "X-HTTP-Method-Override: OPTIONS"),
        ("HEAD /api/authz HTTP/1.1", "Host: localhost"),
        ("OPTIONS /api/authz HTTP/1.1", "Host: localhost", "Origin: https://evil.example"),
        ("GET /API/AUTHZ HTTP/1.1", "Host: localhost"),
        ("GET /api/authz/ HTTP/1.1", "Host: evil.example"),
    ],
    ids=lambda lines: " | ".join(lines),
)
async def test_no_way_of_asking_gets_past_authentication(server: Server, lines: tuple[str, ...]) -> None:
    status, text = await answer(server, *lines)
    assert status in {0, 400, 401, 403, 404, 405, 307}, text
    assert '"user_id"' not in text
    assert "access-control-allow-origin" not in text.lower()
    if status == 307:  # a slash too many: the way back must not lead elsewhere than was asked
        assert "location: http://evil.example/api/authz" in text.lower()


async def test_heads_are_bounded_in_size_and_number(server: Server) -> None:
    line = "GET /health HTTP/1.1"
    assert (await answer(server, line, "Host: localhost", *(f"X-{n}: {n}" for n in range(101))))[0] in {0, 400, 431}
    assert (await answer(server, line, "Host: localhost", f"X-Long: {'x' * 40_000}"))[0] in {0, 400, 431}
    assert (await answer(server, f"GET /health?{'x' * 40_000} HTTP/1.1", "Host: localhost"))[0] in {0, 400, 414, 431}
    assert (await answer(server, line, "Host: localhost", *(f"X-{n}: {n}" for n in range(50))))[0] == 200


# Which names a server answers to


def client_of(**settings: object) -> Client:
    return Client(create_app(make_stages().services(Settings.model_validate({"store": "memory"} | settings))))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "testserver", "a.localhost"]
)
async def test_a_development_server_answers_to_addresses_and_plain_names(host: str) -> None:
    assert (await client_of().request("GET", "/api/authz", headers=only(host))).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
async def test_a_page_cannot_reach_a_development_server_under_a_name_of_its_own(host: str) -> None:
    client = client_of()
    reply = await client.request("POST", "/api/chat", {}, headers=only(host) | {"origin": f"http://{host}"})
    assert (reply.status, reply.json()["code"]) == (403, "not_permitted")
    async with client.socket(headers=only(host) | {"origin": f"http://{host}"}) as socket:
        assert (await socket.message())["status"] == 403


async def test_a_server_answers_to_the_names_it_was_given_and_no_others() -> None:
    client = client_of(hosts=("parley.example",), cors_origins=("https://app.example",))
    for host, status in (("Parley.example:443", 200), ("app.example", 200), ("evil.example", 403), ("127.0.0.1", 403)):
        assert (await client.request("GET", "/api/authz", headers=only(host))).status == status
        assert (await client.request("GET", "/health", headers=only(host))).status == 200
    anywhere = client_of(host="0.0.0.0")  # noqa: S104
    assert (await anywhere.request("GET", "/api/authz", headers=only("parley.example"))).status == 200


def only(host: str) -> dict[str, str]:
    """The header in the place of the client's own."""
    return {"host": host}


# Cross-origin


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("https://app.example.evil.example", False),
        ("https://evil.example", False),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://sub.app.example", False),
        ("null", False),
        ("*", False),
    ],
)
async def test_only_the_very_origins_that_were_named_may_read_answers(origin: str, allowed: bool) -> None:
    client = client_of(cors_origins=("https://app.example",))
    reply = await client.request("GET", "/api/authz", headers={"origin": origin})
    assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert "origin" in reply.headers.get("vary", "").lower()
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight = await client.request("OPTIONS", "/api/chat", headers=asked)
    assert (preflight.status == 200) is allowed
    assert preflight.headers.get("access-control-allow-origin") == (origin if allowed else None)
    if allowed:
        assert reply.headers["access-control-allow-credentials"] == "true"


async def test_limits_of_heads_follow_the_settings() -> None:
    client = client_of(limits=LimitSettings(header_count=5, header_bytes=300))
    assert (await client.request("GET", "/health")).status == 200
    many = await client.request("GET", "/health", headers={f"x-{n}": "1" for n in range(6)})
    assert (many.status, many.json()["code"]) == (431, "too_large")
    assert (await client.request("GET", "/health", headers={"x-long": "x" * 300})).status == 431
    assert (await client.request("GET", "/health", query="x" * 300)).status == 431
    async with client.socket(headers={"x-long": "x" * 300}) as socket:
        assert (await socket.message())["status"] == 431
    async with client.socket(headers={"x-long": "x" * 300}, denial=False) as socket:
        assert (await socket.message())["type"] == "websocket.close"


@pytest.mark.parametrize(
    "name", ["host", "authorization", "content-length", "content-type", "origin", "upgrade", "Host", "AUTHORIZATION"]
)
def test_a_header_that_decides_something_may_come_once_whatever_the_server_in_front_lets_through(name: str) -> None:
    heads = Heads(token_settings())
    once = (name.encode(), b"localhost")
    scope = {"type": "http", "path": "/api/authz", "query_string": b"", "headers": [once]}
    assert heads.refusal(scope) is None
    refused = heads.refusal(scope | {"headers": [once, (name.lower().encode(), b"localhost")]})
    assert refused is not None
    assert refused[1] == 400
