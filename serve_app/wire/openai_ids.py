"""The ids of OpenAI's API over those of turns, each made from the other, so that no table is needed.

    turn      v1_<request>.<ulid>           request and ulid: 26 characters of Crockford base32 each
    outside   chatcmpl-<request><ulid>      resp_<request><ulid>

A request that comes with an idempotency key is named by the key, so that it is found again.
"""

from __future__ import annotations

import hashlib
import re

from ulid import ULID

from serve_app.domain.identity import Principal
from serve_app.domain.ids import REQUEST_PREFIX, TurnKey, new_id
from serve_app.errors import NotFound

_RESPONSE = re.compile(r"resp_([0-9A-HJKMNP-TV-Z]{26})([0-9A-HJKMNP-TV-Z]{26})")


def conversation_id(idempotency_key: str | None) -> str:
    """Where the turn of a request lives. Conversations are their owner's: another's key names another one."""
    if idempotency_key is None:
        return new_id(REQUEST_PREFIX)
    return f"{REQUEST_PREFIX}{ULID.from_bytes(hashlib.sha256(idempotency_key.encode()).digest()[:16])}"


def completion_id(turn_id: str) -> str:
    return f"chatcmpl-{_plain(turn_id)}"


def response_id(turn_id: str) -> str:
    return f"resp_{_plain(turn_id)}"


def response_key(principal: Principal, given: str) -> TurnKey:
    """The turn of the caller's response. Raises NotFound for an id no response can have."""
    found = _RESPONSE.fullmatch(given)
    if found is None:
        raise no_response(given)
    return TurnKey.of(principal, f"{REQUEST_PREFIX}{found[1]}.{found[2]}")


def no_response(given: str) -> NotFound:
    return NotFound(f"Response with id '{given[:128]}' not found.")


def _plain(turn_id: str) -> str:
    request, _, ulid = turn_id.removeprefix(REQUEST_PREFIX).partition(".")
    return request + ulid
