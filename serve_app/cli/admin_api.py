"""The admin API, as the ``parley admin`` commands use it: one question, and its answer as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.api import Api, Caller, Reply, configured_url, parse_url
from serve_app.cli.printable import one_line
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, ParleyError
from serve_app.loopback import LOOPBACK

TOKEN_VARIABLE = "PARLEY_ADMIN_TOKEN"  # noqa: S105 - a name
TIMEOUT_S = 30.0
MAX_PAGES = 1_000


class AdminOptions(Struct, frozen=True, kw_only=True):
    """What is said before the command: which server, by which right, and how to print."""

    url: str | None = None
    token: str | None = None
    as_json: bool = False


class AdminApi:
    """``/api/admin`` of the server that the options name. Raises ParleyError with what the server says where it refuses."""

    def __init__(self, options: AdminOptions) -> None:
        self.url = parse_url(options.url) if options.url is not None else configured_url()
        configured = Secrets.from_environment().parley_admin_token
        token = options.token or (configured.get_secret_value().strip() if configured is not None else None)
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError(
                f"Option --token: a token is printable ASCII without spaces; {TOKEN_VARIABLE} may hold it."
            )
        parts = urlsplit(self.url)
        if token is not None and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            typer.echo("The token travels in plain text; use https where others can listen.", err=True)
        # Without a token it has to be a server in development mode, which takes our word for who we are.
        caller = Caller(user="operator", roles="platform-admin") if token is None else None
        self._api = Api(self.url, caller, TIMEOUT_S, token=token)
        self._has_token = token is not None

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        **query: str | None,
    ) -> dict[str, Any]:
        """``path`` counts from ``/api/admin``; parts of ``query`` that are None are left out."""
        given = urlencode({name: value for name, value in query.items() if value is not None})
        reply = self._api.send(method, f"/api/admin{path}{'?' if given else ''}{given}", body)
        if reply.status >= 300:
            raise ParleyError(self._refusal(reply))
        return reply.body

    def listing(self, path: str, *, limit: int, **query: str | None) -> list[dict[str, Any]]:
        """At most ``limit`` items, of as many pages as that takes."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            wanted = str(min(200, limit - len(items)))
            page = self.ask("GET", path, None, limit=wanted, cursor=cursor, **query)
            items += page.get("items") or []
            cursor = page.get("next_cursor")
            if cursor is None or len(items) >= limit:
                break
        return items

    def _refusal(self, reply: Reply) -> str:
        said = str(reply.body.get("detail") or f"Parley at {self.url} said {reply.status}; see its log.")
        if reply.status == 401 and not self._has_token:
            return f"{said} Set {TOKEN_VARIABLE} to the server's, or give --token."
        fields = [
            f"{e.get('field')}: {e.get('message')}" for e in reply.body.get("errors") or [] if isinstance(e, dict)
        ]
        return one_line(said if len(fields) < 2 else f"{said} ({'; '.join(fields)})", 1_000)


PIPED_WIDTH = 1_000


class Output:
    """Prints answers: as tables for people, or as they came."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = PIPED_WIDTH  # a table that is read by a program is not cut

    def rows(self, items: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> None:
        if self._as_json:
            self._dump(list(items))
            return
        if not items:
            self._console.print(nothing)
            return
        table = Table(*columns, box=None, padding=(0, 2), pad_edge=False)
        for item in items:
            table.add_row(*(Text(shown(item.get(column))) for column in columns))
        self._console.print(table)

    def one(self, item: Mapping[str, Any]) -> None:
        if self._as_json:
            self._dump(dict(item))
            return
        table = Table("", "", box=None, padding=(0, 2), pad_edge=False, show_header=False)
        for name, value in item.items():
            table.add_row(Text(name, style="bold"), Text(shown(value)))
        self._console.print(table)

    def done(self, sentence: str) -> None:
        if not self._as_json:
            self._console.print(Text(one_line(sentence)))

    def _dump(self, value: Any) -> None:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def opened(context: typer.Context) -> tuple[AdminApi, Output]:
    """What a command talks to and prints with."""
    options: AdminOptions = context.obj
    return AdminApi(options), Output(options.as_json)


def shown(value: Any) -> str:
    """A value of an answer on one line: nothing for null, lists by commas, the set fields of an object."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return one_line(", ".join(map(str, value)) or "-")
    if isinstance(value, dict):
        return one_line(", ".join(f"{name} {part}" for name, part in value.items() if part is not None) or "-")
    return one_line(str(value))


def part(value: str) -> str:
    """A value as one part of a path."""
    return quote(value, safe="")


def names(text: str) -> list[str]:
    """Names split by commas."""
    return [name for each in text.split(",") if (name := each.strip())]
