"""What every adapter does with an upload on its way in: even pieces, the cap while it streams, and the quota."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from serve_app.errors import InvalidInput, QuotaExceeded, TooLarge
from serve_app.files.port import PIECE_BYTES, FileUsage
from serve_app.settings import FileSettings


async def pieces_of(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[bytes]:
    """The same bytes in pieces of ``PIECE_BYTES``; only the last is shorter, so the first shows the whole head.

    Raises TooLarge with the first chunk that goes beyond ``max_bytes``, InvalidInput where there was nothing.
    """
    waiting = bytearray()
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            raise file_too_large(max_bytes)
        waiting += chunk
        while len(waiting) >= PIECE_BYTES:
            yield bytes(memoryview(waiting)[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
    if not total:
        raise InvalidInput("The file is empty.")
    if waiting:
        yield bytes(waiting)


def check_quota(limits: FileSettings, usage: FileUsage, *, more_files: int = 0, more_bytes: int = 0) -> None:
    """Raises QuotaExceeded where the user would keep more than anybody may."""
    if usage.files + more_files > limits.max_files_per_user:
        raise QuotaExceeded(f"You keep as many files as you may ({limits.max_files_per_user}); delete some.", False)
    if usage.size_bytes + more_bytes > limits.max_bytes_per_user:
        raise QuotaExceeded(
            f"Your files would take more than the {limits.max_bytes_per_user} bytes you may keep; delete some.", False
        )


def file_too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The file is larger than {max_bytes} bytes.")
