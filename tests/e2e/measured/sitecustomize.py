"""Writes coverage while a process runs: Ray ends its workers in ways that no exit handler sees.

This folder is on PYTHONPATH of a server under test only while coverage is measured. Coverage starts by its own ``.pth`` file
before this module is imported; a save without anything new costs nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import threading

SAVE_EVERY_S = 1.0


def _keep_saving() -> None:
    import coverage

    measuring = coverage.Coverage.current()
    if measuring is None:
        return
    ending = threading.Event()

    def save() -> None:
        while not ending.wait(SAVE_EVERY_S):
            with contextlib.suppress(Exception):
                measuring.save()

    saver = threading.Thread(target=save, name="coverage-saver", daemon=True)
    saver.start()

    @atexit.register
    def stop() -> None:
        # A thread inside SQLite while the interpreter is taken down ends in a crash.
        ending.set()
        saver.join(5.0)


_keep_saving()
