"""What a simulated model says: known beforehand, so that a lost or doubled piece shows in the text itself."""

from __future__ import annotations

import re

PERIOD = 1000
"""The simulated provider counts its words up to here and begins again."""
_TOKENS = re.compile(r"-n(\d+)")


def expected_text(model_id: str | None) -> str | None:
    """The text of ``sim-…-n200``; None for a model whose answer is not known."""
    if model_id is None or not model_id.startswith("sim-") or "-m1" in model_id:
        return None
    found = _TOKENS.search(model_id)
    if found is None:
        return None
    return "".join(f" tok{index % PERIOD}" for index in range(int(found[1])))
