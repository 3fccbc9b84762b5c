"""Load profiles: how fast and how unreliably the provider answers, from a script or from the model's name.

A model called `sim-t300-i20-n200` answers with 200 tokens, the first after 300 ms, then one every 20 ms, so that a load
test needs no script. The letters: t = ms to the first token, i = ms per token, n = tokens, j = jitter in percent,
e = percent of requests refused with 429, k = tool rounds before the text, m1 = every piece carries the moment it was
written (`@@` + 16 hex digits of the monotonic clock in ns).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from serve_app.companions.provider.failures import ProviderError

MAX_TOKENS: Final = 100_000
_MODEL_NAME: Final = re.compile(r"sim(?:-[a-z]\d{1,7})+")
_LETTERS: Final = "tinjekm"


class LoadProfile(BaseModel):
    """Pace and reliability of answers. Times in milliseconds, rates from 0 to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttft_ms: float = Field(default=150.0, ge=0, le=600_000, description="time to the first token")
    token_ms: float = Field(default=15.0, ge=0, le=60_000, description="time from token to token")
    jitter: float = Field(default=0.0, ge=0, le=1, description="share by which each time varies, evenly to both sides")
    error_rate: float = Field(default=0.0, ge=0, le=1, description="share of requests refused")
    error_status: int = Field(default=429, ge=400, le=599, description="status of those refusals")
    truncate_rate: float = Field(default=0.0, ge=0, le=1, description="share of streams that end without finish_reason")
    seed: int = Field(default=1, description="of the chance behind jitter and rates")
    tokens: int | None = Field(
        default=None, ge=1, le=MAX_TOKENS, description="answer with this many filler tokens instead of a real answer"
    )


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """What a model name asks for."""

    profile: LoadProfile
    tool_rounds: int
    markers: bool


def model_from_name(name: str) -> SimulatedModel | None:
    """Read `sim-…`; None for any other name.

    Raises:
        ProviderError: 404 when the name starts like one of these but has an unknown letter or an impossible value.
    """
    if not name.startswith("sim-"):
        return None
    values: dict[str, int] = {}
    known = _MODEL_NAME.fullmatch(name) is not None
    for part in name.split("-")[1:] if known else ():
        values[part[0]] = int(part[1:])
    if not known or any(letter not in _LETTERS for letter in values):
        raise ProviderError(
            404, f"The model '{name}' does not exist; write it like sim-t300-i20-n200-j10-e1-k1-m1.",
            code="model_not_found", param="model",
        )  # fmt: skip
    tokens = min(max(values.get("n", 200), 1), MAX_TOKENS)
    profile = LoadProfile(
        ttft_ms=min(values.get("t", 0), 600_000),
        token_ms=min(values.get("i", 0), 60_000),
        jitter=min(values.get("j", 0), 100) / 100,
        error_rate=min(values.get("e", 0), 100) / 100,
        tokens=tokens,
    )
    return SimulatedModel(profile=profile, tool_rounds=min(values.get("k", 0), 32), markers=bool(values.get("m", 0)))
