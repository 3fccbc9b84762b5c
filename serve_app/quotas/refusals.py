"""The sentences of refusals, the same from every adapter, and how long to wait."""

from __future__ import annotations

import math
from typing import Literal

from serve_app.errors import Overloaded, ParleyError, QuotaExceeded

OPEN_RETRY_S = 2.0
"""When to ask again where a turn has to end first: nobody knows when that will be."""
OVERLOAD_RETRY_S = 1.0

Cause = Literal["open", "concurrent", "turns", "tokens", "requests"]


def refusal(cause: Cause, limit: int, *, of_user: bool = True, wait_s: float = 0.0) -> ParleyError:
    """``limit`` is what would be passed; ``of_user``: the user's own, else the whole tenant's."""
    who = "You have" if of_user else "Your organisation has"
    wait_s = max(wait_s, 0.05)
    match cause:
        case "open":
            return Overloaded("As many answers are being made as this server can; try again.", None, OVERLOAD_RETRY_S)
        case "concurrent":
            return QuotaExceeded(f"{who} {limit} answers under way, which is all at a time.", None, OPEN_RETRY_S)
        case "turns":
            what = f"{limit} messages a minute"
        case "tokens":
            what = f"{limit} tokens a minute"
        case "requests":
            what = f"{limit} requests a minute"
    return QuotaExceeded(f"{who} used up {what}; try again in {math.ceil(wait_s)} s.", None, wait_s)
