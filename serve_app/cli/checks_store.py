"""Checks of the data folder while no graph uses it. They change nothing: no folder is made, no database brought up to date."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.errors import ConfigError
from serve_app.settings import Settings

MIN_FREE_BYTES = 500 * 2**20
CHECK_S = 10.0
"""How long the integrity check may take; of a large database it then has seen a part."""


def check_store(settings: Settings) -> list[Finding]:
    folder = settings.path(settings.data_dir)
    if settings.store == "memory":
        return [warning("data folder", "The store is in memory: nothing is kept.", "Unset PARLEY_STORE to keep it.")]
    try:
        found = _check_folder(folder)
    except ConfigError as error:
        return [problem("data folder", error.message)]
    return [found, *_check_space(folder)]


def _check_folder(folder: Path) -> Finding:
    """Raises ConfigError where the folder cannot be used."""
    from serve_app.cli.preflight import check_access
    from serve_app.storage.sqlite.folder import DATABASE, FolderLock, unusable

    if not folder.exists():
        parent = _existing(folder)
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise unusable(folder, f"it does not exist, and this user may not make it in {parent}")
        return ok("data folder", f"{folder} will be made at the first start.")
    check_access(folder)
    database = folder / DATABASE
    if not database.exists():
        return ok("data folder", f"{folder} is empty; a database will be made at the first start.")
    lock = asyncio.run(FolderLock.acquire(folder, wait_s=0))
    try:
        whole = _check_database(database)
    finally:
        lock.release()
    size = database.stat().st_size / 2**20
    return ok("data folder", f"{folder}: database of {size:.1f} MiB, {'sound' if whole else 'sound as far as looked'}.")


def _check_database(database: Path) -> bool:
    """Whether there was time to look at all of it. Raises ConfigError for a database that cannot be used."""
    from serve_app.storage.sqlite.connection import as_parley_error, open_reader
    from serve_app.storage.sqlite.schema import MIGRATIONS

    until = time.monotonic() + CHECK_S
    advice = "put back a copy of it, or set PARLEY_DATA_DIR to another folder."
    try:
        connection = open_reader(database)
        try:
            connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            made_by = int(connection.pragma("user_version"))
            if made_by > len(MIGRATIONS):
                raise ConfigError(
                    f"The database {database} was written by a newer version of Parley; run that version, "
                    "or set PARLEY_DATA_DIR to another folder."
                )
            said = connection.pragma("quick_check", 1)
        finally:
            connection.close()
    except ConfigError:
        raise
    except Exception as error:  # the driver's own errors are not known here
        if time.monotonic() > until:
            return False
        raise ConfigError(f"The file {database}: {as_parley_error(error).message} ({error}); {advice}") from error
    if said != "ok":
        raise ConfigError(f"The database {database} is damaged ({said}); {advice}")
    return True


def _check_space(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(_existing(folder)).free
    if free >= MIN_FREE_BYTES:
        return []
    return [warning("disk", f"Only {free / 2**20:.0f} MiB are free for {folder}.", "Make room.")]


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder
