"""The words of a query."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.simulators.cosmos.refusals import bad_request

_PATTERN = re.compile(
    r"""\s+|(?P<comment>--[^\n]*)
    |(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<parameter>@\w+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign><=|>=|!=|<>|\|\||[=<>()\[\]{},.:*+\-/%])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number, text, parameter, name, sign, end
    text: str
    at: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "name" and self.text.upper() in words

    def is_sign(self, *signs: str) -> bool:
        return self.kind == "sign" and self.text in signs


def tokens(query: str) -> list[Token]:
    """All tokens and an `end`. Raises a 400 at the first character that begins none."""
    found: list[Token] = []
    at = 0
    while at < len(query):
        match = _PATTERN.match(query, at)
        if match is None:
            raise syntax_error(query, at)
        kind = match.lastgroup
        if kind is not None and kind != "comment":
            found.append(Token(kind, match.group(), at))
        at = match.end()
    return [*found, Token("end", "", len(query))]


def text_of(token: Token) -> str:
    """What a quoted string says."""
    inner = token.text[1:-1]
    return re.sub(
        r"\\(u[0-9a-fA-F]{4}|.)",
        lambda match: chr(int(match[1][1:], 16)) if len(match[1]) == 5 else _ESCAPES.get(match[1], match[1]),
        inner,
    )


def syntax_error(query: str, at: int) -> Exception:
    near = query[at : at + 20]
    return bad_request(
        f'Message: {{"errors":[{{"severity":"Error","code":"SC1001","message":"Syntax error, incorrect syntax near '
        f"'{near}' at {at}.\"}}]}}"
    )
