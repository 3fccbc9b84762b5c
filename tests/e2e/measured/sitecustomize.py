"""Writes coverage while a process runs: Ray ends its workers in ways that no exit handler sees.

This folder is on PYTHONPATH of a server under test only while coverage is measured. Coverage starts by its own ``.pth`` file
before this module is imported; a save without anything new costs nothing.
"""

from __future__ import annotations

import contextlib
import threading

SAVE_EVERY_S = 1.0


def _keep_saving() -> None:
    import coverage

    measuring = coverage.Coverage.current()
    if measuring is None:
        return

    def save() -> None:
        forever = threading.Event()
        while not forever.wait(SAVE_EVERY_S):
            with contextlib.suppress(Exception):
                measuring.save()

    threading.Thread(target=save, name="coverage-saver", daemon=True).start()


_keep_saving()
