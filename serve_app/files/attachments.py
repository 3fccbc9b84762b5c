"""Files that a query names: checked when it is accepted, read when its prompt is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from serve_app.domain.identity import Principal
from serve_app.errors import InvalidInput, NotFound
from serve_app.files.media import is_text
from serve_app.files.port import FILE_ID, FileKey, FileStore, StoredFile

MAX_ATTACHMENTS = 10
MAX_TEXT_BYTES = 32_768
"""A longer text is named to the model, and not shown."""


class Attachment(Struct, frozen=True, kw_only=True):
    """A file as a prompt may show it. ``file`` is None for one deleted since; ``text`` for what is no text, or too long."""

    file: StoredFile | None = None
    text: str | None = None


async def check_attachments(files: FileStore, owner: Principal, file_ids: Sequence[str]) -> None:
    """Returns when all of them are ``owner``'s. Raises InvalidInput for too many or no ids, NotFound."""
    if len(file_ids) > MAX_ATTACHMENTS:
        raise InvalidInput(f"attachments: at most {MAX_ATTACHMENTS} files go with one message.")
    for file_id in file_ids:
        if not FILE_ID.fullmatch(file_id):
            raise InvalidInput("attachments: each must be the file_id of an upload.")
    try:
        await asyncio.gather(*(files.stat(FileKey.of(owner, file_id)) for file_id in file_ids))
    except NotFound as error:
        raise NotFound("attachments: there is no such file.") from error


async def read_attachments(files: FileStore, owner: Principal, file_ids: Sequence[str]) -> list[Attachment]:
    """What a prompt may show of them, in their order. Raises what the store raises while it is away."""
    return await asyncio.gather(*(_read(files, owner, file_id) for file_id in file_ids[:MAX_ATTACHMENTS]))


async def _read(files: FileStore, owner: Principal, file_id: str) -> Attachment:
    try:
        file = await files.stat(FileKey.of(owner, file_id))
        if not is_text(file.media_type) or file.size_bytes > MAX_TEXT_BYTES:
            return Attachment(file=file)
        content = b"".join([piece async for piece in await files.read(file)])
    except NotFound:
        return Attachment()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Attachment(file=file)
    return Attachment(file=file, text=None if "\0" in text else text)
