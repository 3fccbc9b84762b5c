"""``mcpservers.json``: what it may say, and what it says back when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import ConfigError
from serve_app.tools.config import HttpServer, ServerConfig, StdioServer, load_servers, parse_servers

VARIABLES = {"TOKEN": "t0ken", "PORT": "9000", "EMPTY": ""}


def parse(servers: dict[str, Any]) -> tuple[ServerConfig, ...]:
    return parse_servers(json.dumps({"mcpServers": servers}), "mcpservers.json", VARIABLES.get)


def one(**entry: Any) -> ServerConfig:
    return parse({"crm": entry})[0]


def refusal(servers: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_servers(servers if isinstance(servers, str) else json.dumps(servers), "mcpservers.json", VARIABLES.get)
    return caught.value.message


def entry_refusal(**entry: Any) -> str:
    return refusal({"mcpServers": {"crm": entry}})


def test_every_key_is_read() -> None:
    server = one(
        type="streamable-http",
        url="https://crm.example:${PORT}/mcp",
        headers={"Authorization": "Bearer ${TOKEN}"},
        roles=["sales"],
        description="Accounts",
        timeout_s=7,
        connect_timeout_s=3,
        max_calls=4,
        allowed_tools=["find"],
        idempotent_tools=["find"],
        enabled=True,
    )
    assert isinstance(server, HttpServer)
    assert server.url == "https://crm.example:9000/mcp"
    assert server.headers == {"Authorization": "Bearer t0ken"}
    assert (server.roles, server.timeout_s, server.connect_timeout_s, server.max_calls) == (("sales",), 7, 3, 4)


def test_a_process_is_read_with_its_arguments_and_variables() -> None:
    server = one(type="stdio", command="node", args=["x.js", "${PORT}"], env={"KEY": "${TOKEN}"})
    assert isinstance(server, StdioServer)
    assert (server.command, server.args, server.env) == ("node", ("x.js", "9000"), {"KEY": "t0ken"})


def test_entries_of_desktop_clients_without_a_type_are_understood() -> None:
    command, url, http = parse(
        {"a": {"command": "npx"}, "b": {"url": "http://h/mcp"}, "c": {"type": "http", "url": "http://h"}}
    )
    assert isinstance(command, StdioServer)
    assert isinstance(url, HttpServer)
    assert isinstance(http, HttpServer)


def test_servers_keep_the_order_of_the_file_without_the_disabled_ones() -> None:
    servers = parse(
        {
            "zeta": {"url": "http://h"},
            "off": {"url": "${NOT_SET}", "enabled": False},
            "alpha": {"url": "http://h", "enabled": True},
        }
    )
    assert [server.name for server in servers] == ["zeta", "alpha"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${TOKEN}", "t0ken"),
        ("a${TOKEN}b${PORT}c", "at0kenb9000c"),
        ("${MISSING:-default}", "default"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-default}", "default"),
        ("${TOKEN:-default}", "t0ken"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$TOKEN {x} $", "$TOKEN {x} $"),
    ],
)
def test_variables_are_replaced(written: str, read: str) -> None:
    server = one(command="x", args=[written])
    assert isinstance(server, StdioServer)
    assert server.args == (read,)


@given(st.text(st.characters(exclude_characters="$", codec="utf-8"), max_size=50))
def test_text_without_a_dollar_sign_stays_as_it_is(text: str) -> None:
    server = one(command="x", args=[text])
    assert isinstance(server, StdioServer)
    assert server.args == (text,)


def test_what_a_variable_holds_is_not_looked_at_for_more_variables() -> None:
    servers = parse_servers('{"mcpServers": {"a": {"command": "${A}"}}}', "f", {"A": "${B}", "B": "no"}.get)
    assert isinstance(servers[0], StdioServer)
    assert servers[0].command == "${B}"


def test_a_missing_variable_is_named_with_its_server_and_key() -> None:
    said = entry_refusal(url="http://h", headers={"Authorization": "Bearer ${CRM_TOKEN}"})
    assert said == (
        'mcpservers.json: server "crm", key "headers.Authorization": the variable CRM_TOKEN is not set; '
        "set it, or give a default: ${CRM_TOKEN:-…}."
    )


@pytest.mark.parametrize("broken", ["${", "${1A}", "${TOKEN", "${TO KEN}", "${TOKEN:default}"])
def test_a_reference_that_is_none_is_refused(broken: str) -> None:
    assert "begins no variable" in entry_refusal(command="x", args=[broken])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", 'must be an object with the key "mcpServers"'),
        ({"servers": {}}, 'must be an object with the key "mcpServers"'),
        ({"mcpServers": []}, 'must be an object with the key "mcpServers"'),
        ({"mcpServers": {}, "extra": 1}, 'the key "extra" does not exist'),
        ('{"mcpServers": {"a": {"url": "http://x"}, "a": {"url": "http://y"}}}', 'the key "a" is written twice'),
        ({"mcpServers": {"Crm": {"url": "http://h"}}}, "its name must be"),
        ({"mcpServers": {"a.b": {"url": "http://h"}}}, "its name must be"),
        ({"mcpServers": {"": {"url": "http://h"}}}, "its name must be"),
        ({"mcpServers": {"a" * 33: {"url": "http://h"}}}, "its name must be"),
        ({"mcpServers": {"crm": "http://h"}}, "must be an object"),
        ({"mcpServers": {f"s{n}": {"url": "http://h"} for n in range(65)}}, "at most 64"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_in_words(document: Any, said: str) -> None:
    assert said in refusal(document)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, 'needs either "url" (streamable HTTP) or "command" (a process)'),
        ({"url": "http://h", "command": "x"}, 'needs either "url"'),
        ({"type": "sse", "url": "http://h"}, 'key "type": must be "streamable-http" or "stdio"'),
        ({"type": ["stdio"], "command": "x"}, 'key "type"'),
        ({"type": "stdio"}, 'the key "command" is missing'),
        ({"type": "streamable-http"}, 'the key "url" is missing'),
        ({"type": "stdio", "command": "x", "url": "http://h"}, 'the key "url" does not exist for this type'),
        ({"url": "http://h", "role": ["x"]}, 'the key "role" does not exist'),
        ({"url": "http://h", "name": "other"}, 'key "name"'),
        ({"url": "ftp://h"}, "must be an address that begins with http://"),
        ({"url": "http://"}, "must be an address"),
        ({"url": "http://h:99999"}, "must be an address"),
        ({"url": "http://h/a b"}, "must be an address"),
        ({"url": "http://h", "headers": {"a": "x\r\nevil: y"}}, "characters that a header cannot carry"),
        ({"url": "http://h", "headers": {"a b": "x"}}, "characters that a header cannot carry"),
        ({"url": "http://h", "timeout_s": 0}, 'key "timeout_s"'),
        ({"url": "http://h", "timeout_s": "soon"}, 'key "timeout_s"'),
        ({"url": "http://h", "roles": "sales"}, 'key "roles"'),
        ({"url": "http://h", "max_calls": 0}, 'key "max_calls"'),
        ({"command": ""}, 'key "command"'),
    ],
)
def test_an_entry_that_cannot_be_right_names_file_server_and_key(entry: dict[str, Any], said: str) -> None:
    message = entry_refusal(**entry)
    assert message.startswith('mcpservers.json: server "crm"')
    assert said in message


def test_neither_messages_nor_representations_show_a_secret() -> None:
    server = one(url="http://u:${TOKEN}@h/mcp?key=${TOKEN}", headers={"a": "${TOKEN}"})
    process = one(command="x", args=["${TOKEN}"], env={"A": "${TOKEN}"})
    refused = entry_refusal(url="http://h", headers={"a": "${TOKEN}\n"}), entry_refusal(url="${TOKEN}")
    assert server.target == "http://h/mcp"
    for text in (repr(server), repr(process), str(server), server.target, *refused):
        assert "t0ken" not in text


def test_roles_are_denied_unless_they_are_named() -> None:
    absent, named, star = one(url="http://h"), one(url="http://h", roles=["sales"]), one(url="http://h", roles=["*"])
    assert not absent.open_to(["sales", "*"])
    assert named.open_to(["hr", "sales"]) and not named.open_to(["hr"])
    assert star.open_to(["anything"]) and not star.open_to([])


def test_an_allowed_name_allows_itself_and_what_lies_below_it() -> None:
    server = one(url="http://h", allowed_tools=["files"])
    assert server.allows("files") and server.allows("files.read")
    assert not server.allows("filesystem") and not server.allows("file")
    assert not one(url="http://h", allowed_tools=[]).allows("files")
    assert one(url="http://h").allows("anything")


def test_given_variables_win_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "mcpservers.json"
    file.write_text('{"mcpServers": {"crm": {"url": "http://h:${PARLEY_COMPANIONS__PORT:-1}/${HOST_NAME}"}}}')
    environment = {"PARLEY_COMPANIONS__PORT": "2", "HOST_NAME": "there"}
    (server,) = load_servers(file, {"PARLEY_COMPANIONS__PORT": "3"}, environment.get)
    assert isinstance(server, HttpServer)
    assert server.url == "http://h:3/there"


def test_a_file_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set PARLEY_MCP_SERVERS to it, or write"):
        load_servers(tmp_path / "none.json", {})


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "mcpservers.json"
    file.write_text(" " * 1_048_577)
    with pytest.raises(ConfigError, match="larger than"):
        load_servers(file, {})
