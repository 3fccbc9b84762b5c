"""The documents of conversations: read, remembered, and written in batches that hold whole or not at all.

What this replica wrote or read last is remembered with its etag, so that an append needs no read: every write of something that
was there says which version it takes the place of, and whoever decided on an old one is told (``Refused``), reads again and
decides again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from serve_app.domain.conversation import SessionPrompt
from serve_app.errors import Gone, Overloaded, ParleyError
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.batch import Batch, blob_prefix
from serve_app.storage.cosmos.bodies import BodyStore
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import (
    AnyDocument,
    Body,
    Document,
    Head,
    Prompt,
    TurnDocument,
)
from serve_app.storage.cosmos.layout import HEAD, PROMPT, SESSIONS, Partition, conversation_of
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.recent import Locks, Recent
from serve_app.storage.rules import no_conversation
from serve_app.telemetry import logger

HEAD_AGE_S = 30.0
"""How long a head is relied upon: a batch over an old one is refused, which costs more than to read it first."""
REMEMBERED = 8_192
"""Documents remembered at most; the one unused for longest goes first."""
_ROUNDS = 24
_QUERY_LIMIT = 1_000


class BodyMoved(Exception):
    """A body is no longer where its document said: the document has been written or removed since. Never leaves an adapter."""


def body_lost() -> Gone:
    """Of a body that is still not where its document says when both have been read again."""
    return Gone("A part of this is missing from the store and cannot be shown.")


class Sessions:
    """The container of conversations. ``on_head`` is told of each head written, and whether it is a new conversation's.

    ``passing_s``: the documents of a conversation that passes expire so long after they were last written."""

    def __init__(
        self, connection: Connection, bodies: BodyStore, clock: Callable[[], float], *, passing_s: int
    ) -> None:
        self.connection = connection
        self.bodies = bodies
        self.clock = clock
        self.on_head: Callable[[Head, bool], None] = lambda _head, _made: None
        self._passing_s = passing_s
        self._remembered: Recent[tuple[Partition, str], tuple[AnyDocument, float]] = Recent(REMEMBERED)
        self._locks = Locks()
        self._charges: Recent[str, float] = Recent(REMEMBERED)

    # Documents

    async def get(self, partition: Partition, document_id: str, *, fresh: bool = True) -> AnyDocument | None:
        """A document, or None. Not ``fresh``: as this replica knows it, if it does."""
        if not fresh and (known := self._known(partition, document_id)) is not None:
            return known
        json = await self.connection.read(SESSIONS, partition, document_id)
        if json is None:
            self._remembered.drop((partition, document_id))
            return None
        return self.remember(documents.read(json))

    async def head(self, partition: Partition, *, fresh: bool = True) -> Head:
        """Raises NotFound where there is no conversation, or none any more."""
        found = await self.get(partition, HEAD, fresh=fresh)
        if not isinstance(found, Head) or found.deleted:
            raise no_conversation()
        return found

    async def turn(self, partition: Partition, document_id: str, *, fresh: bool = True) -> TurnDocument | None:
        found = await self.get(partition, document_id, fresh=fresh)
        return found if isinstance(found, TurnDocument) else None

    async def prompt(self, head: Head) -> SessionPrompt | None:
        """The prompt of a conversation. A remembered one is as good, where it is the one the head means. None also where its
        body is lost. Raises NotFound where the conversation has gone meanwhile."""
        if head.prompt is None:
            return None
        known = self._known(head.partition, PROMPT)
        if isinstance(known, Prompt) and known.fingerprint == head.prompt:
            try:
                return documents.prompt_of(await self.body(head.partition, known.body))
            except BodyMoved:
                self.forget(head.partition, PROMPT)  # that of a conversation which was deleted since, and made again
        known = await self.get(head.partition, PROMPT)
        try:
            if isinstance(known, Prompt):
                return documents.prompt_of(await self.body(head.partition, known.body))
        except BodyMoved:
            self.forget(head.partition, PROMPT)
        if (await self.head(head.partition)).order != head.order:
            raise no_conversation()
        _log.error("the prompt of a conversation is missing", conversation_id=head.conversation_id)
        return None

    async def query(
        self,
        partition: Partition,
        where: str = "",
        parameters: Mapping[str, Any] | None = None,
        *,
        order: str = "",
        limit: int = _QUERY_LIMIT,
        max_bytes: int | None = None,
    ) -> list[AnyDocument]:
        found = await self.connection.query(
            SESSIONS, partition, where, parameters, order=order, limit=limit, max_bytes=max_bytes
        )
        return [documents.read(json) for json in found]

    async def some(self, partition: Partition, ids: list[str]) -> dict[str, AnyDocument]:
        """Those of the documents that there are, by one query."""
        if not ids:
            return {}
        names = {f"@id{number}": document_id for number, document_id in enumerate(ids)}
        found = await self.query(partition, f"c.id IN ({', '.join(names)})", names, limit=len(ids))
        by_id = {document.id: self.remember(document) for document in found}
        for document_id in ids:
            if document_id not in by_id:
                self.forget(partition, document_id)
        return by_id

    async def body(self, partition: Partition, body: Body) -> str:
        """Raises BodyMoved."""
        if isinstance(body, str):
            return body
        if body.doc is not None:
            json = await self.connection.read(SESSIONS, partition, body.doc)
            if json is None:
                raise BodyMoved
            return str(json["body"])
        found = await self.bodies.get(body.blob or "")
        if found is None:
            raise BodyMoved
        return found.decode()

    async def write(self, batch: Batch) -> None:
        """Writes all of it or nothing, and remembers it. Raises Refused.

        A refusal that may be the echo of our own write, whose answer was lost, is looked into: what was written by this
        batch bears its name.
        """
        for name, body in batch.blobs.items():
            await self.bodies.put(name, body)
        operations = batch.operations
        if conversation_of(batch.partition).passing:
            operations = [operation.expiring(self._passing_s) for operation in operations]
        try:
            etags = await self.connection.write(SESSIONS, batch.partition, operations)
        except Refused as refused:
            for document_id in (*(document.id for document in batch.documents), *batch.forgotten):
                self._remembered.drop((batch.partition, document_id))
            if not (refused.perhaps_written and await self._is_written(batch)):
                if batch.blobs:
                    await self._drop_orphans(batch)
                raise
            return
        except BaseException:
            # Written or not: nothing that is remembered of these can be relied upon.
            for document in batch.documents:
                self._remembered.drop((batch.partition, document.id))
            raise
        for document_id in batch.forgotten:
            self._remembered.drop((batch.partition, document_id))
        by_id = {operation.id: etag for operation, etag in zip(operations, etags, strict=True)}
        for document in batch.documents:
            self._wrote(msgspec.structs.replace(document, etag=by_id[document.id]))

    async def _drop_orphans(self, batch: Batch) -> None:
        """Removes the blobs of a conversation that was deleted while they were written: nobody else might look there again."""
        try:
            head = await self.get(batch.partition, HEAD)
            if isinstance(head, Head) and not head.deleted and head.order == batch.home:
                return
            await self.bodies.delete_prefix(blob_prefix(batch.partition, batch.home))
        except ParleyError as error:
            _log.warning("bodies of a deleted conversation are left", reason=str(error))

    async def _is_written(self, batch: Batch) -> bool:
        """Whether one of the batch's own documents lies there; then all of them did."""
        written = False
        for document in batch.documents:
            if isinstance(document, Head | TurnDocument):
                found = await self.get(batch.partition, document.id)
                if found is not None and found.write_id == batch.write_id:
                    written = True
                    self._wrote(found)
        return written

    def _wrote(self, document: Document) -> None:
        if isinstance(document, Head):
            self.on_head(document, document.version == document.order)
        if isinstance(document, Head | TurnDocument | Prompt):
            self.remember(document)

    def remember(self, document: AnyDocument) -> AnyDocument:
        # What has ended is read anew, and what is gone may have been made again.
        if (isinstance(document, TurnDocument) and document.ended) or (isinstance(document, Head) and document.deleted):
            self._remembered.drop((document.partition, document.id))
        elif isinstance(document, Head | TurnDocument | Prompt):
            self._remembered.put((document.partition, document.id), (document, time.monotonic()))
        return document

    def _known(self, partition: Partition, document_id: str) -> AnyDocument | None:
        """A document as remembered, unless it is a head that another replica may well have written since."""
        known = self._remembered.get((partition, document_id))
        if known is None:
            return None
        document, at = known
        return None if isinstance(document, Head) and time.monotonic() - at > HEAD_AGE_S else document

    def forget(self, partition: Partition, document_id: str) -> None:
        self._remembered.drop((partition, document_id))

    def lock(self, partition: Partition) -> asyncio.Lock:
        """Held by those of this replica who write a conversation's head, that they need not refuse each other."""
        return self._locks.of(partition)

    # What turns are charged

    def charge(self, turn_id: str, charge: float) -> None:
        """Remembers units until the turn is written next."""
        self._charges.put(turn_id, (self._charges.get(turn_id) or 0.0) + charge)

    def take_charge(self, turn_id: str) -> float:
        return self._charges.drop(turn_id) or 0.0


async def rounds() -> AsyncIterator[int]:
    """Times to decide again after others have written in between: at once at first, then after a while, and not for ever.

    Raises Overloaded in the end.
    """
    for number in range(_ROUNDS):
        if number > 1:
            await asyncio.sleep(random.uniform(0, min(1.0, 0.01 * 2 ** min(number, 7))))  # noqa: S311 - jitter
        yield number
    raise Overloaded("Too many write to this conversation at once; try again in a moment.")


_log = logger("storage")
