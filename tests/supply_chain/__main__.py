"""``python -m tests.supply_chain``: locked and installed versions, and ``.pth`` files. Exits with 1 where something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.supply_chain.pth_files import EXPECTED, site_folders, unexpected
from tests.supply_chain.versions import installed, locked, table, unsafe

PROJECT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")


def main() -> int:
    rows = table()
    found = [*installed(), *(one for name in LOCKS for one in locked(PROJECT / name))]
    folders = site_folders()
    problems = unsafe(rows, found) + unexpected(folders)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(
        f"{len(found)} versions against {len(rows)} minimums, {len(folders)} folders for .pth files beside "
        f"{len(EXPECTED)} known ones: {len(problems)} problems\n"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
