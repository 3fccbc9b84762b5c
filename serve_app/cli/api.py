"""HTTP to a running Parley, for commands that ask it a question or two: no session, no proxy, one deadline."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from serve_app.errors import ConfigError, UpstreamFailed

TIMEOUT_S = 5.0
MAX_BODY_BYTES = 16_777_216
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - what is replaced, not bound


class Caller(Struct, frozen=True, kw_only=True):
    """Who the commands speak for, to a server in development mode; None leaves it to the server."""

    user: str | None = None
    tenant: str | None = None
    roles: str | None = None
    """Names split by commas; empty for no roles at all."""

    def headers(self) -> dict[str, str]:
        named = {"X-Dev-User": self.user, "X-Dev-Tenant": self.tenant, "X-Dev-Roles": self.roles}
        headers = {name: value for name, value in named.items() if value is not None}
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                option = {"X-Dev-User": "--as", "X-Dev-Tenant": "--tenant"}.get(name, "--roles")
                raise ConfigError(f"Option {option}: use plain letters, digits and punctuation.")
        return headers


class Reply(Struct, frozen=True):
    """A status and the JSON object that came with it; ``body`` is empty where there was none."""

    status: int
    body: dict[str, Any]


def parse_url(text: str, name: str = "--url") -> str:
    """A server's base address without a slash at the end. Raises ConfigError that names the option."""
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or any(ord(c) <= 32 for c in text.strip()):
        raise ConfigError(
            f"Option {name}: {text!r} is no server's address; write one like http://127.0.0.1:8000 or https://chat.example.com."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def local_url(host: str, port: int) -> str:
    """Where a server that listens on ``host`` and ``port`` is reached from this machine."""
    reached = _EVERY_ADDRESS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def configured_url(config: Path | None = None) -> str:
    """Where the settings say that Parley listens. Raises ConfigError."""
    from serve_app.settings import Settings

    settings = Settings.load(config)
    return local_url(settings.host, settings.port)


class Api:
    """The server at ``url``, as ``caller``, or as whoever ``token`` is good for."""

    def __init__(
        self, url: str, caller: Caller | None = None, timeout_s: float = TIMEOUT_S, *, token: str | None = None
    ) -> None:
        self.url = url
        self._headers = {"accept": "application/json"} | (caller or Caller()).headers()
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s

    def get(self, path: str) -> Reply:
        """Raises UpstreamFailed when nobody answers, or not in JSON; an answer of any status is returned."""
        return self._ask("GET", path, None)

    def get_events(self, path: str) -> list[dict[str, Any]]:
        """Server-sent events in JSON, of a stream that ends; none for any status but 200. Raises as ``get`` does."""
        status, content = self._exchange("GET", path, None)
        lines = content.split(b"\n") if status == 200 else []
        try:
            return [_json_object(line.removeprefix(b"data:")) for line in lines if line.startswith(b"data:")]
        except ValueError as error:
            raise self._no_parley() from error

    def patch(self, path: str, body: Mapping[str, Any]) -> Reply:
        """As ``get``."""
        return self._ask("PATCH", path, json.dumps(body).encode())

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """As ``get``, by any method; without a body, none is sent."""
        return self._ask(method, path, None if body is None else json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        status, content = self._exchange(method, path, body)
        try:
            return Reply(status, _json_object(content))
        except ValueError as error:
            raise self._no_parley() from error

    def _no_parley(self) -> UpstreamFailed:
        return UpstreamFailed(f"What answers at {self.url} is not Parley; name the right address with --url.")

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=self._timeout_s)
        headers = self._headers | ({"content-type": "application/json"} if body is not None else {})
        try:
            connection.request(method, parts.path + path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise not_there(self.url, error) from error
        finally:
            connection.close()


def not_there(url: str, error: Exception) -> UpstreamFailed:
    """No Parley at ``url``, in a sentence that says what to do."""
    if isinstance(error, ConnectionRefusedError):
        reason = "nothing listens there"
    elif isinstance(error, TimeoutError):
        reason = "it did not answer in time"
    elif isinstance(error, ssl.SSLError):
        reason = f"no secure connection: {error.reason or error}"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
    else:
        reason = "what answers does not speak HTTP"
    return UpstreamFailed(
        f"No Parley answers at {url} ({reason}); start one with `parley serve`, or name another with --url."
    )


def _json_object(content: bytes) -> dict[str, Any]:
    """Raises ValueError for anything else."""
    if not content:
        return {}
    loaded = json.loads(content)
    if not isinstance(loaded, dict):
        raise ValueError("not an object")
    return loaded
