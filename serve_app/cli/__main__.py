"""``python -m serve_app.cli``: the same as ``parley``."""

from __future__ import annotations

from serve_app.cli import main

main()
