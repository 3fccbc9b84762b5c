"""A server's tool list, read whole and within bounds, as the tools this program offers.

A server decides what it lists, so everything it says is bounded: pages, tools, names, descriptions, schemas. A tool
that breaks a bound or whose schema cannot be used is left out and named in the log; the others stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp import Client
from mcp_types import Tool as ListedTool

from serve_app.domain.tools import ToolSpec
from serve_app.telemetry import logger
from serve_app.tools.arguments import ArgumentCheck, UnusableSchema
from serve_app.tools.config import ServerConfig
from serve_app.tools.pins import ToolWords

MAX_TOOLS = 256
MAX_PAGES = 32
MAX_DESCRIPTION_CHARS = 4_000
MAX_SCHEMA_BYTES = 65_536

_TOOL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,96}")
_log = logger("tools")


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as it is offered: its spec, its name at the server, its compiled schema, a digest of all of it, and what it says of
    itself, which is pinned.
    """

    spec: ToolSpec
    remote_name: str
    check: ArgumentCheck
    digest: str
    words: ToolWords


class ToolList:
    """The tools of one server. Reading again keeps the objects of tools that did not change, compiled schemas included."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._left_out: dict[str, str] = {}
        self.tools: tuple[OfferedTool, ...] = ()

    async def read(self, client: Client) -> bool:
        """Reads all pages; True if anything changed. Raises what the client raises; the caller bounds the time."""
        listed: dict[str, ListedTool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                listed.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if cursor is None or len(listed) > MAX_TOOLS:
                break
        return await self.take(listed.values(), complete=cursor is None)

    async def take(self, listed: Iterable[ListedTool], *, complete: bool = True) -> bool:
        """Replaces the tools by what was listed; True if anything changed."""
        kept = {tool.remote_name: tool for tool in self.tools}
        left_out: dict[str, str] = {} if complete else {"*": f"more than {MAX_PAGES} pages or {MAX_TOOLS} tools"}
        tools: list[OfferedTool] = []
        names: set[str] = set()
        for tool in listed:
            names.add(tool.name)
            if not self._config.allows(tool.name):
                continue
            if len(tools) == MAX_TOOLS:
                left_out["*"] = f"more than {MAX_TOOLS} tools"
                break
            try:
                tools.append(_offered(self._config, tool, kept))
                if tools[-1] is not kept.get(tool.name):
                    await asyncio.sleep(0)  # compiling a schema takes milliseconds; calls go on between two
            except UnusableSchema as error:
                left_out[tool.name[:96]] = str(error)
        for name in {*(self._config.allowed_tools or ()), *self._config.idempotent_tools, *self._config.side_effects}:
            if not any(tool == name or tool.startswith(f"{name}.") for tool in names):
                left_out[name] = "mcpservers.json names it, but the server does not list it"
        self._warn(left_out)
        changed = [tool.digest for tool in tools] != [tool.digest for tool in self.tools]
        self.tools = tuple(tools)
        return changed

    def _warn(self, left_out: dict[str, str]) -> None:
        for name, why in sorted(left_out.items())[:MAX_TOOLS]:
            if self._left_out.get(name) != why:  # said once, not with every refresh
                _log.warning("tool_left_out", server=self._config.name, tool=name, reason=why)
        self._left_out = left_out


def _offered(config: ServerConfig, listed: ListedTool, kept: Mapping[str, OfferedTool]) -> OfferedTool:
    """Raises UnusableSchema for a tool that cannot be offered."""
    if not _TOOL_NAME.fullmatch(listed.name):
        raise UnusableSchema("its name is longer than 96 or holds other characters than A-Z, a-z, 0-9, _ . / -")
    schema: dict[str, Any] = listed.input_schema
    encoded = msgspec.json.encode(schema)
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise UnusableSchema(f"its input schema is larger than {MAX_SCHEMA_BYTES} bytes")
    description = listed.description or listed.title or ""
    words = ToolWords(name=f"{config.name}.{listed.name}", description=_told(description), input_schema=schema)
    if len(description) > MAX_DESCRIPTION_CHARS:
        description = f"{description[: MAX_DESCRIPTION_CHARS - 1]}…"
    spec = ToolSpec(
        name=words.name,
        description=description,
        input_schema=schema,
        idempotent=config.is_idempotent(listed.name),
        trusted=config.trusted,
        side_effects=config.changes_something(listed.name),
    )
    declared = [words.digest, spec.idempotent, spec.trusted, spec.side_effects]
    digest = hashlib.sha256(msgspec.json.encode(declared)).hexdigest()
    same = kept.get(listed.name)
    if same is not None and same.digest == digest:
        return same
    return OfferedTool(spec=spec, remote_name=listed.name, check=ArgumentCheck(schema), digest=digest, words=words)


def _told(description: str) -> str:
    """A description as it is pinned: one that is too long by its beginning and a hash of all of it."""
    if len(description) <= MAX_DESCRIPTION_CHARS:
        return description
    return f"{description[:MAX_DESCRIPTION_CHARS]}… [{hashlib.sha256(description.encode()).hexdigest()}]"
