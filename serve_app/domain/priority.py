"""Who is served first."""

from __future__ import annotations

from typing import Literal

Priority = Literal["live", "batch"]
"""``batch``: nobody is waiting for it, so that it gives way while there is much to do."""
