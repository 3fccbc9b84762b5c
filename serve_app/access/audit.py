"""The audit log: every change is written down before it is made, and again when its outcome is known.

A change whose intent cannot be written is not made. One whose outcome cannot be written has been made all the same: its entry
stays ``begun``, and the program's own log says why.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from ulid import ULID

from serve_app.access.port import Directory
from serve_app.domain.access import AuditEntry
from serve_app.domain.identity import Principal
from serve_app.errors import ParleyError
from serve_app.telemetry import logger

R = TypeVar("R")

log = logger("access.audit")


class Change(Struct, frozen=True, kw_only=True):
    """What somebody asks for, before it is done. ``actor`` is a word where nobody administers. ``request_id`` finds it in the
    program's log.
    """

    actor: Principal | str
    tenant_id: str
    action: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str = ""


class AuditLog:
    """Writes entries through the directory. ``clock`` gives Unix seconds."""

    def __init__(self, directory: Directory, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    async def during(self, change: Change, work: Callable[[], Awaitable[R]]) -> R:
        """Makes the change between its two entries. Raises what ``work`` raises."""
        now = self._clock()
        entry = AuditEntry(
            entry_id=entry_id(now),
            tenant_id=change.tenant_id,
            at=datetime.fromtimestamp(now, UTC),
            actor=_named(change.actor),
            action=change.action,
            target=change.target,
            before=change.before,
            after=change.after,
            request_id=change.request_id,
        )
        await self._directory.save_audit(entry)
        try:
            done = await work()
        except ParleyError as error:
            # What may yet take effect, or has, is not called failed.
            if not error.retryable:
                await self._finish(replace(entry, outcome="failed", code=error.code))
            raise
        await self._finish(replace(entry, outcome="done"))
        return done

    async def _finish(self, entry: AuditEntry) -> None:
        try:
            await self._directory.save_audit(entry)
        except ParleyError as error:
            log.warning("audit_outcome_lost", entry_id=entry.entry_id, outcome=entry.outcome, error=error.message)


def _named(actor: Principal | str) -> str:
    """No user is called by a word alone."""
    return actor if isinstance(actor, str) else f"{actor.tenant_id}/{actor.user_id}"


def entry_id(now: float) -> str:
    """A unique id that sorts by time; ``now`` is in Unix seconds."""
    return str(ULID.from_timestamp(now))


def differences(before: Struct, after: Struct) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of two records that differ, as JSON knows them."""
    changed = [name for name in after.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    old, new = ({name: msgspec.to_builtins(getattr(record, name)) for name in changed} for record in (before, after))
    return old, new


def shown(record: Struct) -> dict[str, Any]:
    """A record as JSON knows it, without what is as always and what only repeats where it is."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return {name: value for name, value in plain.items() if name != "tenant_id"}
