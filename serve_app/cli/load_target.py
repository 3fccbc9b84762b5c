"""The server that a load test is aimed at: whether load may be put on it at all, and its figures for the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from serve_app.cli.admin_api import TOKEN_VARIABLE
from serve_app.cli.api import Api, Caller, Reply
from serve_app.cli.running_graph import RunningGraph
from serve_app.credentials import Secrets
from serve_app.domain.stages import GraphState
from serve_app.errors import ConfigError, NotFound, NotPermitted, Unauthenticated, UpstreamFailed
from serve_app.loopback import LOOPBACK

STAGES_PATH = "/api/admin/stages"
TIMEOUT_S = 5.0
"""The graph asks its replicas for two seconds at most; the rest is for a target that is busy, whose figures matter most."""


class Stages:
    """Asks a target what its replicas do: with a token, or as a platform administrator of a server in development mode."""

    def __init__(self, url: str, token: str | None = None) -> None:
        caller = Caller(user="operator", roles="platform-admin") if token is None else None
        self._api = Api(url, caller, TIMEOUT_S, token=token)

    def read(self) -> GraphState:
        """Raises NotFound, NotPermitted or Unauthenticated where asking again is of no use, UpstreamFailed otherwise."""
        try:
            reply = self._api.get(STAGES_PATH)
        except UpstreamFailed as error:
            late = isinstance(error.__cause__, TimeoutError)
            reason = f"within {TIMEOUT_S:g} s" if late else "at all"
            raise UpstreamFailed(f"the target did not answer {reason}.") from error
        if reply.status != 200:
            raise _refusal(reply)
        try:
            return msgspec.convert(reply.body, GraphState)
        except msgspec.ValidationError as error:
            raise NotFound(f"What the target answers at {STAGES_PATH} is of another version ({error}).") from None


def admin_token(given: str | None) -> str | None:
    """The token of an administrator: what the option says, or else the environment. Raises ConfigError for what is none."""
    return _token("--admin-token", given, Secrets.from_environment().parley_admin_token)


def load_token(given: str | None) -> str | None:
    """As ``admin_token``, what the users of the load show."""
    return _token("--token", given, Secrets.from_environment().parley_load_token)


def _token(option: str, given: str | None, configured: SecretStr | None) -> str | None:
    token = given or (configured.get_secret_value().strip() if configured is not None else None)
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"Option {option}: a token is printable ASCII without spaces.")
    return token or None


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def is_simulated(graph: RunningGraph) -> bool:
    """Whether the graph says that no real provider answers, which could send a bill."""
    models = graph.dependencies.get("models")
    return models is not None and models.simulated is True


def _refusal(reply: Reply) -> NotFound | NotPermitted | Unauthenticated | UpstreamFailed:
    body: Mapping[str, Any] = reply.body
    said = str(body.get("detail") or f"the target answered {reply.status}").rstrip(".")
    if reply.status == 401:
        return Unauthenticated(f"{said}. Set {TOKEN_VARIABLE} to the server's, or give --admin-token.")
    if reply.status == 403:
        return NotPermitted(f"{said}. Only an administrator of the platform may see them.")
    if reply.status == 404:
        return NotFound(f"the target does not know {STAGES_PATH} ({said}).")
    return UpstreamFailed(f"{said}.")
