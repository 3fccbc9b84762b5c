"""From words to a query: the part of Cosmos SQL that the simulator models, and a sentence for what it does not.

After the "NoSQL query" reference: SELECT [TOP n] [VALUE] …, FROM one alias, WHERE, ORDER BY paths, OFFSET … LIMIT ….
"""

from __future__ import annotations

from tests.simulators.cosmos.json_values import Step
from tests.simulators.cosmos.refusals import not_modelled
from tests.simulators.cosmos.sql_cursor import Cursor
from tests.simulators.cosmos.sql_syntax import (
    Aggregate,
    All,
    ArrayOf,
    Call,
    Comparison,
    Expression,
    In,
    Literal,
    Not,
    ObjectOf,
    Parameter,
    Path,
    Query,
    Some,
)
from tests.simulators.cosmos.sql_tokenizer import Token, text_of

FUNCTIONS = {
    "IS_DEFINED": (1, 1),
    "IS_NULL": (1, 1),
    "ARRAY_LENGTH": (1, 1),
    "ARRAY_CONTAINS": (2, 2),
    "STARTSWITH": (2, 2),
}
AGGREGATES = ("COUNT", "MIN", "MAX", "SUM", "AVG")
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}
_NOT_MODELLED = ("DISTINCT", "JOIN", "GROUP", "LIKE", "EXISTS", "ARRAY", "UNDEFINED", "UDF", "IN", "ESCAPE")


def parse(query: str) -> Query:
    """Raises a 400: a syntax error, or what is not modelled."""
    return _Parser(query).query()


def parse_condition(condition: str) -> Expression | None:
    """The filter of a conditional patch: `FROM c WHERE …`."""
    return _Parser(condition).condition()


class _Parser(Cursor):
    def __init__(self, query: str) -> None:
        super().__init__(query)
        self._alias = self._find_alias()

    def query(self) -> Query:
        self.word("SELECT")
        if self.peek.is_word("DISTINCT"):
            raise not_modelled("SELECT DISTINCT")
        top = self._primary() if self.skip_word("TOP") else None
        value = self.skip_word("VALUE")
        fields = None
        if not value and self.skip_sign("*"):
            pass
        else:
            fields = self._fields(value=value)
        self._from()
        where = self._expression() if self.skip_word("WHERE") else None
        if self.peek.is_word("GROUP"):
            raise not_modelled("GROUP BY")
        order = self._order() if self.skip_word("ORDER") else ()
        offset = limit = None
        if self.skip_word("OFFSET"):
            offset = self._primary()
            self.word("LIMIT")
            limit = self._primary()
        self._end()
        query = Query(fields, value, top, where, order, offset, limit)
        if query.aggregates and (len(fields or ()) != 1 or order or top or offset):
            raise not_modelled("an aggregate among other things: SELECT VALUE COUNT(1) … alone is")
        return query

    def condition(self) -> Expression | None:
        self._from()
        where = self._expression() if self.skip_word("WHERE") else None
        self._end()
        return where

    def _end(self) -> None:
        if self.peek.kind == "end":
            return
        if self.peek.is_word(*_NOT_MODELLED) or self.peek.is_sign("+", "-", "*", "/", "%", "||"):
            raise not_modelled(f"'{self.peek.text}' in a query")
        raise self.error(self.peek)

    # --- clauses

    def _find_alias(self) -> str:
        for at, token in enumerate(self.tokens):
            if token.is_word("FROM"):
                name = self.tokens[at + 1]
                after = self.tokens[at + 2] if at + 2 < len(self.tokens) else name
                if after.is_word("AS"):
                    name = self.tokens[at + 3]
                elif after.kind == "name" and not after.is_word("WHERE", "ORDER", "OFFSET", "GROUP", "JOIN", "IN"):
                    name = after
                if name.kind != "name":
                    raise self.error(name)
                return name.text
        raise not_modelled("a query without FROM")

    def _from(self) -> None:
        self.word("FROM")
        self.name()
        if self.skip_word("AS") or (
            self.peek.kind == "name" and not self.peek.is_word("WHERE", "ORDER", "OFFSET", "GROUP", "JOIN", "IN")
        ):
            self.name()
        if self.peek.is_word("JOIN", "IN") or self.peek.is_sign(",", "."):
            raise not_modelled("FROM more than the container itself")

    def _fields(self, *, value: bool) -> tuple[tuple[str, Expression], ...]:
        fields: list[tuple[str, Expression]] = []
        while True:
            item = self._aggregate() or self._expression()
            name = f"${len(fields) + 1}"
            if isinstance(item, Path) and item.steps and isinstance(item.steps[-1], str):
                name = item.steps[-1]
            elif isinstance(item, Path) and not item.steps:
                name = self._alias
            if not value and (self.skip_word("AS") or (self.peek.kind == "name" and not self.peek.is_word("FROM"))):
                name = self.name().text
            fields.append((name, item))
            if value or not self.skip_sign(","):
                return tuple(fields)

    def _aggregate(self) -> Aggregate | None:
        if not (self.peek.is_word(*AGGREGATES) and self.tokens[self.at + 1].is_sign("(")):
            return None
        name = self.name().text.upper()
        self.sign("(")
        item = self._expression()
        self.sign(")")
        return Aggregate(name, item)

    def _order(self) -> tuple[tuple[Path, bool], ...]:
        self.word("BY")
        items: list[tuple[Path, bool]] = []
        while True:
            item = self._primary()
            if not isinstance(item, Path) or not item.steps:
                raise not_modelled("ORDER BY of anything but a path of the document")
            descending = self.skip_word("DESC")
            if not descending:
                self.skip_word("ASC")
            items.append((item, descending))
            if not self.skip_sign(","):
                return tuple(items)

    # --- expressions, loosest first

    def _expression(self) -> Expression:
        items = [self._conjunction()]
        while self.skip_word("OR"):
            items.append(self._conjunction())
        return items[0] if len(items) == 1 else Some(tuple(items))

    def _conjunction(self) -> Expression:
        items = [self._negation()]
        while self.skip_word("AND"):
            items.append(self._negation())
        return items[0] if len(items) == 1 else All(tuple(items))

    def _negation(self) -> Expression:
        if self.skip_word("NOT"):
            return Not(self._negation())
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._primary()
        if self.peek.is_sign("=", "!=", "<>", "<", "<=", ">", ">="):
            sign = self.take().text
            return Comparison("!=" if sign == "<>" else sign, left, self._primary())
        negated = self.peek.is_word("NOT") and self.tokens[self.at + 1].is_word("IN", "BETWEEN")
        if negated:
            self.take()
        found: Expression
        if self.skip_word("IN"):
            self.sign("(")
            found = In(left, self._list(")"))
        elif self.skip_word("BETWEEN"):
            low = self._primary()
            self.word("AND")
            found = All((Comparison(">=", left, low), Comparison("<=", left, self._primary())))
        else:
            return left
        return Not(found) if negated else found

    def _primary(self) -> Expression:
        token = self.take()
        if token.kind == "number":
            return Literal(_number(token.text))
        if token.is_sign("-") and self.peek.kind == "number":
            return Literal(-_number(self.take().text))
        if token.kind == "text":
            return Literal(text_of(token))
        if token.kind == "parameter":
            return Parameter(token.text)
        if token.is_sign("("):
            item = self._expression()
            self.sign(")")
            return item
        if token.is_sign("["):
            return ArrayOf(self._list("]"))
        if token.is_sign("{"):
            return self._object()
        if token.kind == "name":
            return self._named(token)
        raise self.error(token)

    def _named(self, token: Token) -> Expression:
        if token.text.upper() in _CONSTANTS:
            return Literal(_CONSTANTS[token.text.upper()])
        if self.peek.is_sign("("):
            name = token.text.upper()
            if name not in FUNCTIONS:
                raise not_modelled(f"the function {name}")
            self.take()
            arguments = self._list(")")
            fewest, most = FUNCTIONS[name]
            if not fewest <= len(arguments) <= most:
                raise not_modelled(f"{name} with {len(arguments)} arguments")
            return Call(name, arguments)
        if token.text == self._alias:
            return self._path()
        if token.is_word(*_NOT_MODELLED):
            raise not_modelled(token.text.upper())
        raise self.error(token)

    def _path(self) -> Path:
        steps: list[Step] = []
        while True:
            if self.skip_sign("."):
                steps.append(self.name().text)
            elif self.skip_sign("["):
                token = self.take()
                if token.kind == "text":
                    steps.append(text_of(token))
                elif token.kind == "number" and token.text.isdecimal():
                    steps.append(int(token.text))
                else:
                    raise self.error(token)
                self.sign("]")
            else:
                return Path(tuple(steps))

    def _list(self, end: str) -> tuple[Expression, ...]:
        items: list[Expression] = []
        if self.skip_sign(end):
            return ()
        while True:
            items.append(self._expression())
            if self.skip_sign(end):
                return tuple(items)
            self.sign(",")

    def _object(self) -> ObjectOf:
        items: list[tuple[str, Expression]] = []
        while True:
            token = self.take()
            name = text_of(token) if token.kind == "text" else token.text
            if token.kind not in ("text", "name"):
                raise self.error(token)
            self.sign(":")
            items.append((name, self._expression()))
            if self.skip_sign("}"):
                return ObjectOf(tuple(items))
            self.sign(",")


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)
