"""``mcpservers.json``: which tool servers there are, who may use them, and how they are reached.

The file belongs to the operator. Nothing that arrives in a request can add a server, change a command or an address:
that is why servers that are started as processes (``stdio``) exist only here. An example with every key::

    {"mcpServers": {
        "crm":   {"type": "streamable-http", "url": "http://127.0.0.1:${CRM_PORT:-9000}/mcp",
                  "headers": {"authorization": "Bearer ${CRM_TOKEN}"},
                  "description": "Accounts and contacts", "roles": ["sales"], "timeout_s": 20, "connect_timeout_s": 5,
                  "max_calls": 32, "allowed_tools": ["find_account"], "idempotent_tools": ["find_account"],
                  "private": true, "trusted": false, "side_effects": ["update_opportunity"], "enabled": true},
        "clock": {"type": "stdio", "command": "mcp-server-time", "args": [], "env": {}, "roles": ["*"]}}}

``${NAME}`` in any value is replaced; ``${NAME:-text}`` has a default and ``$${`` is a plain ``${``. Values may be
secrets, so no message and no ``repr`` from here repeats one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from serve_app.errors import ConfigError
from serve_app.settings import environment_variable

EVERY_ROLE = "*"
MAX_FILE_BYTES = 1_048_576
MAX_SERVERS = 64

_SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_TYPES = {"streamable-http": "streamable-http", "http": "streamable-http", "stdio": "stdio"}

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Lookup = Callable[[str], str | None]


class _Server(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    description: str = Field(default="", max_length=1000)
    roles: tuple[Name, ...] = ()
    """Who may use the server's tools: nobody where it is empty; ``*`` is anyone who holds a role."""
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Longest a call may take; the caller's deadline can only shorten it."""
    connect_timeout_s: float | None = Field(default=None, gt=0, le=600)
    """Longest it may take to connect and to list tools, if not ``tool.connect_timeout_s``."""
    max_calls: int = Field(default=32, ge=1, le=1024)
    """Calls in flight per replica, so that a slow server cannot take all of ``tool.max_calls``."""
    allowed_tools: tuple[Name, ...] | None = None
    """Only these tools (and those below them: ``files`` allows ``files.read``); None allows all."""
    idempotent_tools: tuple[Name, ...] = ()
    """Tools that may be run twice, named as in ``allowed_tools``."""
    trusted: bool = False
    """Whether what its tools answer is nobody else's text. Where it is not, it is marked for the model, and counts as read."""
    side_effects: tuple[Name, ...] = ()
    """Tools that change something, named as in ``allowed_tools``: a turn that has read others' text asks its user first."""
    enabled: bool = True

    def open_to(self, roles: Sequence[str]) -> bool:
        """Whether a principal with these roles may use the server."""
        return bool(roles) and (EVERY_ROLE in self.roles or not set(self.roles).isdisjoint(roles))

    def allows(self, tool: str) -> bool:
        return self.allowed_tools is None or _names(self.allowed_tools, tool)

    def is_idempotent(self, tool: str) -> bool:
        return _names(self.idempotent_tools, tool)

    def changes_something(self, tool: str) -> bool:
        return _names(self.side_effects, tool)


class HttpServer(_Server):
    """A server reached over streamable HTTP."""

    type: Literal["streamable-http"] = "streamable-http"
    url: str = Field(repr=False)
    headers: dict[Name, str] = Field(default_factory=dict, repr=False)
    private: bool = False
    """Whether it may be at an address that is not public: on this machine, in a private network, behind a proxy."""

    @field_validator("url")
    @classmethod
    def _is_http_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(ord(c) <= 32 for c in url):
            raise ValueError("must be an address that begins with http:// or https:// and names a host")
        return url

    @field_validator("headers")
    @classmethod
    def _are_one_line(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
                raise ValueError(f"the header {name[:40]!r} holds characters that a header cannot carry")
        return headers

    @property
    def target(self) -> str:
        """The address for messages: without credentials and query."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}


class StdioServer(_Server):
    """A server started as a process of ours, which speaks over its standard input and output."""

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    args: tuple[str, ...] = Field(default=(), repr=False)
    env: dict[Name, str] = Field(default_factory=dict, repr=False)

    @property
    def target(self) -> str:
        return f"the command {self.command!r}"


ServerConfig = HttpServer | StdioServer


def load_servers(
    path: Path, variables: Mapping[str, str], environment: Lookup = environment_variable
) -> tuple[ServerConfig, ...]:
    """Reads the file; enabled servers in its order. ``variables`` win over the environment.

    Raises ConfigError that names the file, the server and the key, and says what to do.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The tool servers' file {path} cannot be read ({error.strerror}); "
            'set PARLEY_MCP_SERVERS to it, or write {"mcpServers": {}} there to run without tools.'
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"The tool servers' file {path} is larger than {MAX_FILE_BYTES} bytes; shorten it.")
    return parse_servers(raw, str(path), lambda name: variables.get(name) or environment(name))


def parse_servers(text: str | bytes, source: str, lookup: Lookup) -> tuple[ServerConfig, ...]:
    """What ``load_servers`` does with the file's content; ``source`` names it in messages."""
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply; correct it.") from None
    except ValueError as error:  # also bytes that are no UTF-8
        raise ConfigError(f"{source} is not valid JSON: {error}; correct it.") from None
    if not isinstance(document, dict) or not isinstance(document.get("mcpServers"), dict):
        raise ConfigError(f'{source} must be an object with the key "mcpServers", itself an object of servers by name.')
    if unknown := sorted(set(document) - {"mcpServers"}):
        raise ConfigError(f'{source}: the key "{unknown[0]}" does not exist; only "mcpServers" does. Remove it.')
    entries: dict[str, Any] = document["mcpServers"]
    if len(entries) > MAX_SERVERS:
        raise ConfigError(f"{source} names {len(entries)} servers; at most {MAX_SERVERS} are possible.")
    servers = [_server(f'{source}: server "{name}"', name, entry, lookup) for name, entry in entries.items()]
    return tuple(server for server in servers if server is not None)


def _server(where: str, name: str, entry: Any, lookup: Lookup) -> ServerConfig | None:
    if not _SERVER_NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: its name must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit; rename it."
        )
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be an object; write its settings in braces.")
    if "name" in entry:
        raise ConfigError(f'{where}, key "name": a server is named by its key in "mcpServers"; remove it.')
    if entry.get("enabled") is False:
        return None  # its variables need not be set
    values = {key: _filled(value, where, key, lookup) for key, value in entry.items()}
    model = _model(where, values)
    try:
        return model.model_validate(values | {"name": name, "type": _TYPES[values["type"]]})
    except ValidationError as error:
        raise ConfigError(_sentence(where, error)) from None


def _model(where: str, values: dict[str, Any]) -> type[HttpServer] | type[StdioServer]:
    if "type" not in values:  # desktop clients' files leave it out
        if ("command" in values) == ("url" in values):
            raise ConfigError(
                f'{where} needs either "url" (streamable HTTP) or "command" (a process); '
                'give one of them, or the key "type".'
            )
        values["type"] = "stdio" if "command" in values else "streamable-http"
    if not isinstance(values["type"], str) or values["type"] not in _TYPES:
        raise ConfigError(f'{where}, key "type": must be "streamable-http" or "stdio"; correct it.')
    return StdioServer if values["type"] == "stdio" else HttpServer


def _filled(value: Any, where: str, key: str, lookup: Lookup) -> Any:
    """The value with its variables replaced, at any depth."""
    if isinstance(value, dict):
        return {inner_key: _filled(inner, where, f"{key}.{inner_key}", lookup) for inner_key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, where, key, lookup) for inner in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$${":
            return "${"
        variable, default = match.groups()
        if variable is None:
            raise ConfigError(
                f'{where}, key "{key}": holds a ${{ that begins no variable; write ${{NAME}}, or $${{ for a plain one.'
            )
        found = lookup(variable) or default
        if found is None:
            raise ConfigError(
                f'{where}, key "{key}": the variable {variable} is not set; '
                f"set it, or give a default: ${{{variable}:-…}}."
            )
        return found

    return _REFERENCE.sub(replacement, value)


def _sentence(where: str, error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f'{where}: the key "{key}" does not exist for this type of server; remove it or correct its name.'
    if first["type"] == "missing":
        return f'{where}: the key "{key}" is missing; add it.'
    message = first["msg"].removeprefix("Value error, ")
    return f'{where}, key "{key}": {message[0].lower() + message[1:]}; correct it.'


def _names(names: Sequence[str], tool: str) -> bool:
    """Whether one of the names is the tool's or the namespace it lies in."""
    return any(tool == name or tool.startswith(f"{name}.") for name in names)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:  # JSON would keep the last one in silence
            raise ValueError(f'the key "{key}" is written twice')
        found[key] = value
    return found
