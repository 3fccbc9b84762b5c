"""Secrets in every header, body, argument and exception: none of them reaches a log file, standard error or standard output."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from serve_app import redaction
from serve_app.credentials import Secrets, secret_values
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolSet
from serve_app.redaction import HIDDEN, begin_request, hide, is_secret, redacted, scrub
from serve_app.settings import LogSettings
from serve_app.telemetry import configure_logging, logger
from tests.security.conftest import Door, open_door
from tests.security.people import ANNA
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.test_sse import asking

MARK = "c4n4ry7f3a"
"""Part of every secret here: wherever it shows up, one has been told."""
JWT = f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ{MARK}In0.c2lnbmF0dXJl{MARK}"
OPAQUE = f"opaque-{MARK}-token"
SHAPED = (
    f"Bearer {OPAQUE}",
    f"basic {MARK}dXNlcjpwdw==",
    JWT,
    f"sk-proj-{MARK}{MARK}",
    f"password={MARK}",
    f"'access_token': '{MARK}'",
    f'{{"api_key": "{MARK}"}}',
    f'{{\\"refresh_token\\": \\"{MARK}\\"}}',
    f"Cookie: parley_refresh={MARK}",
    f"https://parley.example/ws/chat?ticket={MARK}&x=1",
    f"redis://:{MARK}@cache:6379/0",
    f"AccountKey={MARK}==",
    f"https://files.example/x?sv=1&sig={MARK}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{MARK}\n-----END RSA PRIVATE KEY-----",
    f"gAAAAAB{MARK}{MARK}==",
    f"$argon2id$v=19$m=65536,t=3,p=4${MARK}",
    f"LoginBody(name='anna', password='{MARK}')",
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was: it is configured for the whole process."""
    before, factory, hidden = structlog.get_config(), logging.getLogRecordFactory(), set(redaction._process)
    yield
    redaction._process.clear()  # what one test hides by value would be hidden in all that follow
    redaction._process.update(hidden)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    logging.setLogRecordFactory(factory)


@pytest.fixture(params=["json", "console"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    configure_logging(LogSettings(level="debug", format=request.param), tmp_path)
    return tmp_path


def said(folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    captured = capfd.readouterr()
    return captured.out + captured.err + "".join(path.read_text() for path in sorted(folder.iterdir()))


HEADERS = {
    "authorization": f"Bearer {OPAQUE}",
    "cookie": f"parley_refresh={MARK}-of-the-cookie; theme={MARK}",
    "x-api-key": f"{MARK}-key",
    "proxy-authorization": f"Basic {MARK}",
    "x-request-id": f"/{MARK}/",
    "user-agent": f"agent {MARK}",
    "referer": f"https://x.example/?{MARK}",
    "x-forwarded-for": MARK,
    "idempotency-key": f"idem-{MARK}",
    "x-anything": MARK,
    "last-event-id": MARK,
    "if-match": MARK,
}


def everybodys_door() -> Door:
    door = open_door()
    door.people.add(OPAQUE, ANNA)
    return door


async def test_requests_with_secrets_in_every_place(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    door = everybodys_door()
    client = Client(door.app, HEADERS)
    body = asking(f"My password is {MARK}", f"c-{MARK}") | {"messageId": None}
    assert (await client.request("POST", "/api/chat", body)).status == 200
    for method, path in (
        ("GET", "/api/conversations"),
        ("GET", f"/api/conversations/{MARK}"),
        ("PATCH", f"/api/conversations/c-{MARK}"),
        ("GET", f"/api/turns/{MARK}"),
        ("DELETE", f"/{MARK}"),
        ("POST", "/api/auth/login"),
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/password"),
        ("POST", "/api/auth/reset"),
        ("POST", "/api/file"),
    ):
        secrets = {"username": MARK, "password": MARK, "token": MARK, "refresh_token": MARK, "new_password": MARK}
        for sent in (secrets, {"title": MARK}, [MARK], MARK):
            reply = await client.request(method, path, sent, query=f"cursor={MARK}&token={MARK}&ticket={MARK}")
            assert reply.status < 500 or reply.status == 503
    assert MARK not in said(folder, capfd)


async def test_sockets_with_secrets_in_every_place(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    door = everybodys_door()
    for query in ({"ticket": MARK}, {"token": MARK, "access_token": MARK}):
        async with Client(door.app, {"cookie": MARK}).socket(query=query) as socket:
            await socket.message()
            await socket.message()
            socket.send(type="session.update", accessToken=OPAQUE, email_id=MARK, session_id=f"c-{MARK}")
            await socket.message()
            socket.send(type="query", content=MARK, client_turn_id=MARK, model_id=MARK, tool_id=MARK)
            socket.send(type="session.update", accessToken=f"other-{MARK}")
            socket.send_text(f'{{"type":"{MARK}","accessToken":"{MARK}"')
            with pytest.raises((AssertionError, TimeoutError, RuntimeError)):
                while True:
                    await asyncio.wait_for(socket.message(), 0.3)
    assert MARK not in said(folder, capfd)


async def test_an_exception_that_carries_a_secret(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = everybodys_door()
    secret = ""

    async def tools_for(principal: Principal) -> ToolSet:
        raise RuntimeError(f"the provider said {secret} to {principal.user_id}")

    async def build(request: PromptRequest) -> Prompt:
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise RuntimeError("while building") from error

    monkeypatch.setattr(door.stages.tools, "tools_for", tools_for)
    monkeypatch.setattr(door.stages.prompts, "build", build)
    client = Client(door.app, HEADERS)
    for secret in SHAPED:
        assert (await client.request("GET", "/api/capabilities")).status == 500
        async with client.socket() as socket:
            await socket.accepted()
            socket.send(type="session.update", session_id="s1")
            assert (await socket.frame())["code"] == "internal"
        text = said(folder, capfd)
        assert "RuntimeError" in text, "what failed is still told"
        assert MARK not in text, secret


async def test_a_requests_own_token_is_hidden_wherever_an_exception_repeats_it(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = everybodys_door()

    async def tools_for(principal: Principal) -> ToolSet:
        raise RuntimeError(f"no good: {OPAQUE!r}, {MARK}-of-the-cookie, {MARK}-key")

    monkeypatch.setattr(door.stages.tools, "tools_for", tools_for)
    headers = {name: HEADERS[name] for name in ("authorization", "cookie", "x-api-key")}
    assert (await Client(door.app, headers).request("GET", "/api/capabilities")).status == 500
    assert MARK not in said(folder, capfd)


def test_what_libraries_log_is_scrubbed_too(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.FileHandler(folder / "library.log")
    library = logging.getLogger("uvicorn.error")
    logging.getLogger().addHandler(handler)
    try:
        for secret in SHAPED:
            library.warning('%s - "WebSocket %s" [accepted]', ("127.0.0.1", 1), secret)
            try:
                raise RuntimeError(secret)
            except RuntimeError:
                logging.getLogger("asyncio").exception("Task exception was never retrieved: %s", {"said": secret})
            text = said(folder, capfd)
            assert "Task exception" in text
            assert MARK not in text, secret
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_values_of_the_process_are_hidden_by_value(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secrets = Secrets.model_validate(
        {"parley_admin_token": f"plain {MARK} of thirty-two characters", "redis_url": MARK}
    )
    hide(secret_values(secrets))
    logger("x").info("told", where=f"<{MARK}>", nested={"deep": [f"a plain {MARK} of thirty-two characters b"]})
    assert MARK not in said(folder, capfd)


@pytest.mark.parametrize(
    "secret",
    [
        f'say "{MARK}"',
        f"it's {MARK}",
        f"both \"{MARK}\" and '{MARK}'",
        f"back\\{MARK}",
        f"ünï-{MARK}",
        f"two\n{MARK}\nlines",
    ],
)
def test_a_known_value_is_hidden_however_it_is_quoted(
    folder: Path, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    begin_request({"x-api-key": secret}, {})
    try:
        raise RuntimeError({"said": secret})
    except RuntimeError:
        logger("x").exception("failed", where=f"<{secret}>", what=[secret])
        logging.getLogger("uvicorn.error").warning("%r and %s", {"said": secret}, secret)
    text = said(folder, capfd)
    assert "RuntimeError" in text
    assert MARK not in text


def test_arguments_are_hidden_by_name_however_deep(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {
        "password": MARK,
        "apiKey": MARK,
        "login": {"accessToken": MARK, "list": [{"client_secret": MARK, "x-api-key": MARK, "Set-Cookie": MARK}]},
    }
    logger("x").warning("called", arguments=arguments, authorization=MARK, tokens=12, input_tokens=3)
    text = said(folder, capfd)
    assert MARK not in text
    assert "12" in text
    assert "3" in text


def test_one_requests_secrets_are_no_others(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    begin_request({"authorization": "Bearer innocent-looking"}, {})
    logger("x").info("innocent-looking")
    begin_request({"authorization": "Bearer something-else"}, {})
    logger("x").info("as innocent-looking as before")
    text = said(folder, capfd)
    assert text.count("innocent-looking") == 1
    assert HIDDEN in text


@pytest.mark.parametrize(
    "plain",
    [
        "turn_ended",
        "12 tokens of 4000 were used",
        "The ticket office opens at nine",
        "There is no such conversation.",
        "https://parley.example/api/turns/c1.01JCQ2Z7M5Y8W3X9K4T6V1B0ND?after=3",
        "basic idea",
        "ValueError: what went wrong",
        '{"input_tokens": 5, "output_tokens": 2}',
    ],
)
def test_what_is_no_secret_is_left_as_it_is(plain: str) -> None:
    begin_request({}, {})
    assert scrub(plain) == plain


def test_names_of_secrets_are_told_from_names_of_counts() -> None:
    assert all(
        map(is_secret, ("token", "X-Api-Key", "refreshToken", "AZURE_COSMOS_KEY_SECRET", "private_key", "cookie"))
    )
    assert not any(map(is_secret, ("tokens", "input_tokens", "key", "kid", "author", "event", "user_id", "tokenizer")))
    assert redacted({"a": ({"token": 1},)}) == {"a": [{"token": HIDDEN}]}
