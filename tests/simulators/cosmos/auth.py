"""Who may speak: the firewall, the date of a request and its master-key signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import parse_qsl, unquote

from tests.simulators.cosmos.refusals import Refusal

TOKEN_LIFE_S = 15 * 60
AHEAD_S = 5 * 60  # reported refusals: 6:46 and 7:40 ahead; nothing public says exactly how much is borne


def check_firewall(ip: str) -> None:
    raise Refusal(
        403,
        f"Request originated from IP {ip} through public internet. This is blocked by your Cosmos DB account firewall "
        "settings. More info: https://aka.ms/cosmosdb-tsg-forbidden",
    )


def check(method: str, segments: Sequence[str], headers: Mapping[str, str], *, keys: Sequence[str], now: float) -> None:
    """Raise the service's refusal unless one of `keys` (base64) signed this request within its time."""
    authorization = headers.get("authorization")
    if not authorization:
        raise Refusal(401, "Required Header authorization is missing. Ensure a valid Authorization token is passed.")
    date = headers.get("x-ms-date", "")
    token = dict(parse_qsl(unquote(authorization).replace("+", "%2B"), keep_blank_values=True))
    if token.get("type") != "master" or token.get("ver") != "1.0":
        raise Refusal(
            401,
            "The input authorization token can't serve the request: the simulator knows master keys only "
            f"(type={token.get('type')!r}).",
        )
    payload = _payload(method, segments, date)
    if not any(hmac.compare_digest(_signature(payload, key), token.get("sig", "")) for key in keys):
        shown = payload.replace("\n", "\\n")
        raise Refusal(
            401,
            "The input authorization token can't serve the request. The wrong key is being used or the expected payload "
            "is not built as per the protocol. For more info: https://aka.ms/cosmosdb-tsg-unauthorized. "
            f"Server used the following payload to sign: '{shown}'",
        )
    _check_date(date, now)


def _check_date(date: str, now: float) -> None:
    try:
        start = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        raise Refusal(
            401, f"The input date header is invalid format: '{date}'. Please pass in RFC 1123 style."
        ) from None
    if not start - AHEAD_S <= now <= start + TOKEN_LIFE_S:
        raise Refusal(
            403,
            "The authorization token is not valid at the current time. Please create another token and retry "
            f"(token start time: {formatdate(start, usegmt=True)}, "
            f"token expiry time: {formatdate(start + TOKEN_LIFE_S, usegmt=True)}, "
            f"current server time: {formatdate(now, usegmt=True)}).",
        )


def _payload(method: str, segments: Sequence[str], date: str) -> str:
    if len(segments) % 2:
        kind, link = segments[-1], "/".join(segments[:-1])
    else:
        kind, link = (segments[-2], "/".join(segments)) if segments else ("", "")
    if kind == "offers":
        link = segments[1].lower() if len(segments) > 1 else ""
    return f"{method.lower()}\n{kind.lower()}\n{link}\n{date.lower()}\n\n"


def _signature(payload: str, key: str) -> str:
    digest = hmac.new(base64.b64decode(key), payload.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
