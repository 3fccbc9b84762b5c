"""One clock for a whole process: monotonic seconds inside, Unix seconds in what is written down.

The offset is taken once, so that a correction of the machine's time during a run moves no latency.
"""

from __future__ import annotations

import time

_OFFSET_S = time.time() - time.monotonic()

now = time.monotonic


def unix(at: float) -> float:
    """``at``, a moment of :func:`now`, in Unix seconds."""
    return round(at + _OFFSET_S, 6)
