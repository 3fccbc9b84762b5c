"""A process that locks a store's file as a backup or a person with a shell might: until a line comes on standard input.

Run as ``python -m tests.simulators.storage.holder FILE LOCK``; prints a line once it holds the lock. LOCK is what follows
``BEGIN``: ``IMMEDIATE`` or ``EXCLUSIVE``.
"""

from __future__ import annotations

import sys

import apsw


def main(path: str, lock: str) -> None:
    connection = apsw.Connection(path)
    connection.execute(f"BEGIN {lock}")
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
