"""What a prompt template may refer to.

All of it is data: strings that a template shows and never evaluates. Names, roles and descriptions come from tokens and
tool servers, so each is made one bounded line: none can open a new section of the prompt or hide in control characters.
"""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Mapping, Sequence

from msgspec import Struct

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSpec

MAX_NAME_CHARS = 200
MAX_DESCRIPTION_CHARS = 1_000

_BREAKS = frozenset({"Zl", "Zp", "Cc"})
"""Line and paragraph separators, controls."""
_INVISIBLE = frozenset({"Cf", "Cs", "Co", "Cn"})
"""Zero width, direction overrides and tags; surrogates; private use; not assigned."""
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class DateVariable(Struct, frozen=True, kw_only=True):
    """``iso`` is ``2026-11-23``; ``weekday`` is English."""

    iso: str
    weekday: str


class UserVariable(Struct, frozen=True, kw_only=True):
    id: str
    roles: tuple[str, ...]


class ToolVariable(Struct, frozen=True, kw_only=True):
    """``name`` is the full name, ``<server>.<tool>``."""

    name: str
    description: str
    server: str


class ServerVariable(Struct, frozen=True, kw_only=True):
    """A tool server and the full names of its tools that this principal may use."""

    name: str
    description: str
    tools: tuple[str, ...]


class Variables(Struct, frozen=True, kw_only=True):
    """Everything a template can name. ``roles`` are sorted; ``servers`` are in the order of their first tool."""

    date: DateVariable
    user: UserVariable
    tenant: str
    roles: tuple[str, ...]
    tools: tuple[ToolVariable, ...] = ()
    servers: tuple[ServerVariable, ...] = ()

    @classmethod
    def of(
        cls,
        principal: Principal,
        tools: Sequence[ToolSpec],
        today: datetime.date,
        server_descriptions: Mapping[str, str],
    ) -> Variables:
        """``server_descriptions`` are by server name; a server without one has an empty description."""
        roles = tuple(one_line(role) for role in sorted(principal.roles))
        shown = tuple(
            ToolVariable(
                name=one_line(tool.name),
                description=one_line(tool.description, MAX_DESCRIPTION_CHARS),
                server=one_line(tool.server),
            )
            for tool in tools
        )
        by_server: dict[str, list[str]] = {}
        for tool in shown:
            by_server.setdefault(tool.server, []).append(tool.name)
        return cls(
            date=DateVariable(iso=today.isoformat(), weekday=_WEEKDAYS[today.weekday()]),
            user=UserVariable(id=one_line(principal.user_id), roles=roles),
            tenant=one_line(principal.tenant_id),
            roles=roles,
            tools=shown,
            servers=tuple(
                ServerVariable(
                    name=name,
                    description=one_line(server_descriptions.get(name, ""), MAX_DESCRIPTION_CHARS),
                    tools=tuple(names),
                )
                for name, names in by_server.items()
            ),
        )

    def as_context(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__struct_fields__}


VARIABLE_NAMES = frozenset(Variables.__struct_fields__)


def one_line(text: str, max_chars: int = MAX_NAME_CHARS) -> str:
    """``text`` without line breaks, controls and invisible characters, at most ``max_chars`` long."""
    # Only the beginning can be shown, so a very long text is not looked at to its end.
    kept = text[: max_chars * 4]
    if not (kept.isascii() and kept.isprintable()):
        kept = "".join(map(_shown, kept))
    kept = " ".join(kept.split())
    return kept if len(kept) <= max_chars else kept[: max_chars - 1].rstrip() + "…"


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    return " " if category in _BREAKS else "" if category in _INVISIBLE else char
