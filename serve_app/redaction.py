"""What is kept out of logs: secrets by the name they go by, by their shape, and those that are known by value.

The last are the process's own (:func:`hide`) and those of the request that is being served (:func:`hide_here`): an exception
may carry them anywhere. Texts of users, arguments and results of tools are not logged in the first place.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

HIDDEN = "[redacted]"
MIN_CHARS = 8
"""A shorter value would be found in innocent words."""
MAX_HIDDEN = 64
MAX_DEPTH = 6
MAX_NAME_CHARS = 128

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {
        "accesstoken",
        "accountkey",
        "apikey",
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "idtoken",
        "jwt",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "refreshtoken",
        "secret",
        "secrets",
        "sig",
        "signature",
        "ticket",
        "token",
    }
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("signing", "key"), ("account", "key"), ("access", "key")}
)

_NAMES = (
    r"authorization|proxy-authorization|set-cookie|cookie|x-api-key|api[-_]?key|account[-_]?key|signing[-_]?key|access[-_]?token|"
    r"refresh[-_]?token|id[-_]?token|client[-_]?secret|password|passwd|passphrase|secret|ticket|token|sig"
)
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("-----begin",),
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        HIDDEN,
    ),
    (("bearer",), re.compile(r"\b(bearer)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        ("basic",),
        re.compile(r"\b(basic)\s+(?=[A-Za-z+/]*[0-9=])[A-Za-z0-9+/]{4,}={0,2}", re.IGNORECASE),
        rf"\1 {HIDDEN}",
    ),
    (("eyj",), re.compile(r"\beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){1,4}"), HIDDEN),
    (("sk-", "pk-", "rk-"), re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{12,}"), HIDDEN),
    (("gaaaa",), re.compile(r"\bgAAAA[A-Za-z0-9_=-]{20,}"), HIDDEN),
    (("$argon2",), re.compile(r"\$argon2[a-z]*\$[A-Za-z0-9+/=,$-]+"), HIDDEN),
    (("://",), re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"), HIDDEN),
    # A name, what stands between, and the value; in JSON, in a repr, in a header, in an address.
    (
        ("authorization", "cookie", "key", "token", "secret", "pass", "ticket", "sig"),
        re.compile(
            rf"(?<![A-Za-z0-9])({_NAMES})(\\*[\"']?\s*[:=]\s*b?\\*[\"']?)(?!\[redacted)[^\s\"'&,;)\]}}\\]+",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
)
"""What must be in a text, in lower case, for it to be worth a search; what is searched; what takes its place."""

_ESCAPED = re.compile(r"[\"'\\]")
_process: set[str] = set()
_here: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("hidden_here", default=())


def hide(values: Iterable[str | None]) -> None:
    """Keeps these out of everything the process logs."""
    for value in values:
        if value is not None and len(value) >= MIN_CHARS:
            _process.update(_forms(value))


def hide_here(values: Iterable[str]) -> None:
    """Keeps these out of what is logged in this context."""
    given = (*_here.get(), *(form for value in values if len(value) >= MIN_CHARS for form in _forms(value)))
    _here.set(given[-MAX_HIDDEN:])


def _forms(value: str) -> list[str]:
    """How a value stands in a line: as it is, in JSON, in a repr (as in a traceback), and that in JSON again."""
    if value.isascii() and value.isprintable() and not _ESCAPED.search(value):
        return [value]
    quoted = repr(value)[1:-1]
    forms = (json.dumps(value)[1:-1], json.dumps(quoted)[1:-1], quoted, value)
    return list(dict.fromkeys(forms))


def begin_request(headers: Mapping[str, str], query: Mapping[str, str]) -> None:
    """A new request begins in this context: its credentials are hidden, those of another no longer need to be."""
    given: list[str] = []
    for name, value in headers.items():
        if is_secret(name):
            given += (value, *re.split(r"[\s;,=]+", value))
    given += (value for name, value in query.items() if is_secret(name))
    _here.set(())
    if given:
        hide_here(given)


def is_secret(name: str) -> bool:
    """Whether what goes by that name is a secret. Counts of tokens are none."""
    return _is_secret(name[:MAX_NAME_CHARS])


@lru_cache(maxsize=1_024)  # the same few names come with every request
def _is_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(word in _SECRET_WORDS for word in words) or any(pair in _SECRET_PAIRS for pair in pairwise(words))


def redacted(value: Any, depth: int = MAX_DEPTH) -> Any:
    """``value`` with what goes by a secret's name replaced, however deep."""
    if depth <= 0:
        return value
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(key, str) and is_secret(key) else redacted(each, depth - 1)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redacted(each, depth - 1) for each in value]
    return value


def scrub(text: str) -> str:
    """``text`` without what is known to be a secret, or looks like one."""
    for known in (*_here.get(), *_process):
        if known in text:
            text = text.replace(known, HIDDEN)
    lower = text.lower()
    for signs, shape, instead in _SHAPES:
        if any(sign in lower for sign in signs):
            text = shape.sub(instead, text)
    return text


def scrub_standard_logging() -> None:
    """Has every record of the standard library's logging scrubbed, whoever makes and prints it. Safe to call again."""
    make = logging.getLogRecordFactory()
    if getattr(make, "scrubs", False):
        return

    def make_scrubbed(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
            if (clean := scrub(said)) != said:
                record.msg, record.args = clean, ()
            if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
                record.exc_text = scrub("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        except Exception:  # noqa: S110 - a record that cannot be formatted is its maker's affair, and logging must not fail
            pass
        return record

    make_scrubbed.scrubs = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_scrubbed)
