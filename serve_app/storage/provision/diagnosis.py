"""What an Azure account's refusals mean, in words for whoever has to set it right."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from msgspec import Struct

from serve_app.http_date import clock_off_s

ERRORS = (AzureError, TimeoutError, OSError, ValueError)
"""Everything a request of the SDK may raise that is about the account or the way to it."""
CLOCK_LIMIT_S = 900.0
"""The service refuses requests dated further off than this."""
_IP = re.compile(r"originated from (?:client )?IP ([0-9A-Fa-f.:]+)")
_MESSAGE_CHARS = 300


class Diagnosis(Struct, frozen=True):
    """``message`` is one sentence; ``todo`` says what to do. ``passing``: it may be well again by itself."""

    message: str
    todo: str = ""
    passing: bool = False


def diagnose(error: Exception, *, endpoint: str, database: str, by_key: bool, now: float) -> Diagnosis:
    """``by_key``: whether requests are signed with AZURE_COSMOS_KEY, or by Entra ID; ``now``: Unix seconds of this machine."""
    off_s = clock_off_s(headers_of(error), now)
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _refusal(error, endpoint, database, by_key, off_s)
    if isinstance(error, ClientAuthenticationError):
        return no_token(error)
    if isinstance(error, TimeoutError):
        return Diagnosis(
            f"Nothing answered at {endpoint} in time.",
            "See that a firewall or a private network lets this machine through to it.",
            passing=True,
        )
    return Diagnosis(
        f"{endpoint} cannot be reached: {_first_line(error)}",
        "Correct PARLEY_AZURE__COSMOS_ENDPOINT (https://<account>.documents.azure.com:443/), or this machine's network.",
        passing=True,
    )


def _refusal(error: HttpResponseError, endpoint: str, database: str, by_key: bool, off_s: float | None) -> Diagnosis:
    said = str(error)
    status = error.status_code
    if status in (401, 403) and off_s is not None and abs(off_s) > CLOCK_LIMIT_S:
        return clock_finding(off_s)
    if status == 403 and (found := _IP.search(said)):
        return Diagnosis(
            f"The firewall of the Cosmos DB account does not let this machine in (its address there is {found[1]}).",
            "Add the address under Networking in the portal, or reach the account by a private endpoint.",
        )
    if by_key and "Local Authorization is disabled" in said:
        return Diagnosis("The Cosmos DB account takes no keys.", "Unset AZURE_COSMOS_KEY; Entra ID is asked then.")
    if status in (401, 403) and not by_key:
        return Diagnosis(
            f"Entra ID knows this machine, but Cosmos DB does not let it do this: {_first_line(error)}",
            "Give the identity the role 'Cosmos DB Built-in Data Contributor'. That role cannot make databases or containers: "
            "for `parley store init` set AZURE_COSMOS_KEY.",
        )
    if status == 401:
        return Diagnosis(
            f"{endpoint} does not accept AZURE_COSMOS_KEY.",
            "Copy the primary key of this very account into it (Keys in the portal); after a change of keys the old one is "
            "good for nothing.",
        )
    if status == 403:
        return Diagnosis(f"Cosmos DB refuses this: {_first_line(error)}", "See the account's Networking and Keys.")
    if status == 404:
        return Diagnosis(f"There is no database {database} at {endpoint}.", "Run `parley store init`.")
    if status in (408, 429, 449, 500, 502, 503, 504):
        return Diagnosis(f"Cosmos DB is busy or away ({status}).", "Try again in a moment.", passing=True)
    if status == 400 and "serverless" in said:
        return Diagnosis(
            "This is a serverless account, which has no throughput to set.", "Set PARLEY_AZURE__COSMOS_MAX_RUS=0."
        )
    return Diagnosis(f"Cosmos DB refuses this ({status}): {_first_line(error)}")


def quiet_sdks() -> None:
    """For commands: the SDKs log at length what they raise as well, and what is said here in a sentence."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)


def no_token(error: Exception) -> Diagnosis:
    """Entra ID did not say who this machine is."""
    reason = "it did not answer in time." if isinstance(error, TimeoutError) else _first_line(error)
    return Diagnosis(
        f"AZURE_COSMOS_KEY is not set, and Entra ID gave no token: {reason}",
        "Set AZURE_COSMOS_KEY, or sign in with `az login`, or give this machine a managed identity.",
    )


def clock_finding(off_s: float) -> Diagnosis:
    """``off_s``: how far this machine's clock is ahead."""
    minutes = round(abs(off_s) / 60)
    return Diagnosis(
        f"This machine's clock is {minutes} minutes {'ahead of' if off_s > 0 else 'behind'} Azure's, which refuses what is "
        f"more than {CLOCK_LIMIT_S / 60:.0f} minutes off.",
        "Set the clock, best by time synchronisation (`timedatectl set-ntp true`).",
    )


def headers_of(error: Exception) -> Mapping[str, str]:
    """Of the answer that the error is about; empty where there was none."""
    response: Any = getattr(error, "response", None)
    headers: Any = getattr(error, "headers", None) or getattr(response, "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    line = next((line for line in lines if line and not line.startswith("Status code:")), type(error).__name__)
    line = line if len(line) <= _MESSAGE_CHARS else f"{line[:_MESSAGE_CHARS]}…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."
