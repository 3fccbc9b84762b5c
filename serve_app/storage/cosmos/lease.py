"""Which replica keeps the projection going, and what it tells the others: one row, written again and again by who has it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.layout import JOBS, SYSTEM_TENANT, Partition
from serve_app.storage.cosmos.operations import Operation, Refused

LEASE_S = 10.0
RENEW_S = 3.0
"""How old a lease is renewed; several renewals may fail before it is lost."""
MAX_TOLD = 100
"""Turns that the others are told of at most."""
STATE: Partition = (SYSTEM_TENANT, "projection")
_ID = "lease"
_ROUNDS = 3


class Lease:
    """The lease, as one replica sees it. ``told`` are the turns that its holder has found abandoned, as of the last
    :meth:`take` that was false: partitions and ids of documents, longest abandoned first."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._name = uuid.uuid4().hex
        self._until = 0.0
        self._says: list[list[str]] = []
        self.told: list[tuple[Partition, str]] = []

    async def take(self) -> bool:
        """Whether this replica has it from now on, or still."""
        return self._until - self._clock() > LEASE_S - RENEW_S or await self._put()

    async def tell(self, turns: Sequence[tuple[Partition, str]]) -> None:
        """Tells the others which turns are abandoned, if that is anything new."""
        says = [[*partition, document_id] for partition, document_id in turns[:MAX_TOLD]]
        if says == self._says:
            return
        before, self._says = self._says, says
        try:
            await self._put()
        except BaseException:
            self._says = before
            raise

    async def give_up(self) -> None:
        self._says = []
        if self._until:
            self._until = 0.0
            await self._put(lease_s=0.0)

    def forget(self) -> None:
        self._until = 0.0
        self._says = []

    async def _put(self, *, lease_s: float = LEASE_S) -> bool:
        now = self._clock()
        for _ in range(_ROUNDS):
            found = await self._connection.read(JOBS, STATE, _ID)
            if found is not None and found["owner"] != self._name and found["until"] > now:
                self._until = 0.0
                self.told = [((tenant, second), name) for tenant, second, name in found.get("abandoned", [])]
                return False
            json = {
                "id": _ID,
                "tenantId": STATE[0],
                "kind": STATE[1],
                "owner": self._name,
                "until": now + lease_s if lease_s else 0.0,
                "abandoned": self._says,
            }
            operation = Operation("create", _ID, json)
            if found is not None:
                operation = Operation("replace", _ID, json, etag=str(found["_etag"]))
            try:
                await self._connection.write(JOBS, STATE, [operation])
            except Refused:
                continue  # by another who was faster, or by ourselves where the answer was lost
            self._until = now + lease_s if lease_s else 0.0
            return True
        return False
