"""Where a parser is in its words, and how it goes on."""

from __future__ import annotations

from tests.simulators.cosmos.sql_tokenizer import Token, syntax_error, tokens


class Cursor:
    """`word`, `sign` and `name` raise the service's syntax error where something else stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0

    @property
    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def skip_word(self, word: str) -> bool:
        found = self.peek.is_word(word)
        self.at += found
        return found

    def skip_sign(self, sign: str) -> bool:
        found = self.peek.is_sign(sign)
        self.at += found
        return found

    def word(self, word: str) -> None:
        if not self.skip_word(word):
            raise self.error(self.peek)

    def sign(self, sign: str) -> None:
        if not self.skip_sign(sign):
            raise self.error(self.peek)

    def name(self) -> Token:
        token = self.take()
        if token.kind != "name":
            raise self.error(token)
        return token

    def error(self, token: Token) -> Exception:
        return syntax_error(self.text, token.at)
