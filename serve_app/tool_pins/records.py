"""What tools said of themselves when they were first seen, so that none can change its words unnoticed.

A description is text that a model obeys. A server that changes it, or the schema, after people have come to rely on the tool
can make the model do something else ("rug pull"). So each tool is pinned as it is first seen; one that changes is put into
quarantine, where nobody is offered it and nobody can call it, until an administrator has looked and approved the new words.

    first seen ─► pinned ◄───────── approved ─┐
                    └── changed ─► quarantined ┘      (the words of before come back: in use again)

One record a tool, shared by all replicas.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.errors import Conflict, NotFound, Overloaded
from serve_app.storage.port import MAX_PAGE, RecordStore
from serve_app.telemetry import logger
from serve_app.tools.pins import ToolWords

KIND = "tool_pin"
SYSTEM_TENANT = ""
"""Pins are the installation's, not any tenant's."""
MAX_APPROVED = 8
"""Earlier words of a tool that stay good: replicas of a server may be of two versions for a while."""
MAX_TRIES = 5

_ENCODE = msgspec.json.Encoder(order="deterministic").encode
_log = logger("tools.pins")


class ToolPin(Struct, frozen=True, kw_only=True):
    """``approved`` are digests, newest first. ``changed`` is what waits for approval. Instants are in Unix seconds."""

    name: str
    approved: tuple[str, ...]
    pinned_at: float
    words: ToolWords
    """As last approved."""
    changed: ToolWords | None = None
    changed_at: float | None = None

    def accepts(self, words: ToolWords) -> bool:
        return words.digest in self.approved


class StoredPins:
    """Pins of one store. Knows what it has once found approved, so that a list that did not change asks nobody."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._approved: set[str] = set()

    async def judge(self, tools: Sequence[ToolWords]) -> frozenset[str]:
        unknown = [words for words in tools if words.digest not in self._approved]
        if not unknown:
            return frozenset()
        pins = await self._of({words.name for words in unknown})
        held = set()
        for words in unknown:
            pin = pins.get(words.name) or await self._pin(words)
            if pin.accepts(words):
                self._approved.add(words.digest)
            else:
                held.add(words.name)
                if pin.changed is None or pin.changed.digest != words.digest:
                    await self._note(words)
        return frozenset(held)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[ToolPin]:
        """By name."""
        page = await self._store.list_records(SYSTEM_TENANT, KIND, cursor=cursor, limit=limit)
        return Page(items=tuple(_decode(record.body) for record in page.items), next_cursor=page.next_cursor)

    async def approve(self, name: str, digest: str) -> ToolPin:
        """Makes the changed words with that digest the tool's. Again is fine.

        Raises NotFound; Conflict where these are not the words that wait, so that nobody approves what they have not seen.
        """
        for _ in range(MAX_TRIES):
            record = await self._get(name)
            pin = _decode(record.body)
            if digest in pin.approved and pin.changed is None:
                return pin
            if pin.changed is None or pin.changed.digest != digest:
                raise Conflict("The tool has changed again since it was read, or waits for no approval; read it again.")
            approved = (digest, *(one for one in pin.approved if one != digest))[:MAX_APPROVED]
            pin = replace(
                pin, approved=approved, words=pin.changed, changed=None, changed_at=None, pinned_at=time.time()
            )
            try:
                await self._store.save_record(SYSTEM_TENANT, KIND, name, _ENCODE(pin), if_match=record.etag)
            except Conflict:
                continue
            _log.info("tool_approved", tool=name, digest=digest)
            return pin
        raise _busy()

    async def _of(self, names: set[str]) -> dict[str, ToolPin]:
        """The pins there are of these tools."""
        if len(names) == 1:
            name = next(iter(names))
            try:
                return {name: _decode((await self._get(name)).body)}
            except NotFound:
                return {}
        found: dict[str, ToolPin] = {}
        cursor: str | None = None
        while True:
            page = await self.list(cursor=cursor, limit=MAX_PAGE)
            found |= {pin.name: pin for pin in page.items if pin.name in names}
            cursor = page.next_cursor
            if cursor is None or len(found) == len(names):
                return found

    async def _pin(self, words: ToolWords) -> ToolPin:
        """The pin of a tool that has none yet: its own, or that of another replica that was quicker."""
        pin = ToolPin(name=words.name, approved=(words.digest,), pinned_at=time.time(), words=words)
        try:
            await self._store.save_record(SYSTEM_TENANT, KIND, words.name, _ENCODE(pin), if_match="")
        except Conflict:
            return _decode((await self._get(words.name)).body)
        return pin

    async def _note(self, words: ToolWords) -> None:
        """Keeps the changed words for whoever is to approve them."""
        record = await self._get(words.name)
        pin = _decode(record.body)
        if pin.accepts(words):
            return  # approved this moment; the next look finds it so
        changed = replace(pin, changed=words, changed_at=time.time())
        try:
            await self._store.save_record(SYSTEM_TENANT, KIND, words.name, _ENCODE(changed), if_match=record.etag)
        except Conflict:
            return  # another replica has noted it
        _log.warning("tool_quarantined", tool=words.name, digest=words.digest)

    async def _get(self, name: str) -> Record:
        try:
            return await self._store.get_record(SYSTEM_TENANT, KIND, name)
        except NotFound:
            raise NotFound("There is no such tool.") from None


def _busy() -> Overloaded:
    return Overloaded("The tool's record could not be written; try again.", None, 1.0)


_decode = msgspec.json.Decoder(ToolPin).decode
