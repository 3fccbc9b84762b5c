"""Records of the system's that are good for a while, and whose ids begin with when that is over.

A listing by id then begins with what has expired, so that whoever adds a record removes a few leftovers with one short listing:
there are never many, and nothing else has to look for them.
"""

from __future__ import annotations

import contextlib
import re
import secrets

from serve_app.domain.access import SYSTEM_TENANT
from serve_app.errors import Conflict, NotFound, ParleyError
from serve_app.storage.port import RecordStore
from serve_app.telemetry import logger

SWEPT_AT_ONCE = 8
"""More than one for each that is added, so that leftovers become fewer."""

log = logger("storage")

EXPIRING_ID = re.compile(r"([0-9a-f]{10})-[0-9a-f]{32,64}")


def expiring_id(expires_at: float, rest: str | None = None) -> str:
    """``rest``: hexadecimal digits that make it unique; random ones by default."""
    return f"{int(expires_at):010x}-{rest or secrets.token_hex(16)}"


async def sweep_expired(store: RecordStore, kind: str, now: float) -> None:
    """Removes a few records that expired before ``now`` (Unix seconds). Where the store cannot, another call will."""
    try:
        page = await store.list_records(SYSTEM_TENANT, kind, limit=SWEPT_AT_ONCE)
        for record in page.items:
            if record.record_id >= f"{int(now):010x}":
                return
            await delete_if_there(store, kind, record.record_id)
    except ParleyError as error:
        log.warning("leftovers_kept", kind=kind, error=error.code)


async def delete_if_there(store: RecordStore, kind: str, record_id: str, tenant_id: str = SYSTEM_TENANT) -> None:
    with contextlib.suppress(NotFound, Conflict):
        await store.delete_record(tenant_id, kind, record_id)
