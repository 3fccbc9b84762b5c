"""The one file of a ``multipart/form-data`` body, as it streams in: nothing of it is kept here or spooled to disk."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import InvalidInput

MAX_PREAMBLE_BYTES = 65_536
"""Most that may come before the file begins."""

_ONE_FILE = "Send one file, as multipart/form-data with a filename."
_ESCAPES = (("%22", '"'), ("%0D", " "), ("%0A", " "))
"""What browsers write in a filename that has quotes or line breaks."""


class FileUpload:
    """``name`` and ``media_type`` as the client gave them: not to be trusted. Made by ``begin_upload``."""

    def __init__(self, content_type: str, body: AsyncIterable[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidInput(_ONE_FILE)
        self.name = ""
        self.media_type = ""
        self._body: AsyncIterator[bytes] = aiter(body)
        self._begun = False
        self._body_ended = False
        self._pieces: deque[bytes] = deque()
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _unreadable() from error

    async def begin(self) -> None:
        read = 0
        while True:
            if self._begun:
                return
            if self._body_ended or read > MAX_PREAMBLE_BYTES:
                raise InvalidInput(_ONE_FILE)
            read += await self._feed()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The file's content. Raises InvalidInput where the body breaks off, or has anything beside the file."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._body_ended:
                return
            await self._feed()

    async def _feed(self) -> int:
        """Reads on in the body; how many bytes."""
        chunk = await anext(self._body, None)
        if chunk is None:
            raise InvalidInput("The body ended before its file did; send it again.")
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable() from error
        return len(chunk)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if self._begun or b"filename" not in options:
            raise InvalidInput(_ONE_FILE)
        self._begun = True
        self.name = _filename(options[b"filename"])
        self.media_type = self._headers.get(b"content-type", b"").decode("latin-1")
        self._headers.clear()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _on_end(self) -> None:
        self._body_ended = True


async def begin_upload(content_type: str, body: AsyncIterable[bytes]) -> FileUpload:
    """Reads up to where the file begins. Raises InvalidInput for a body that is none, or has anything before the file."""
    upload = FileUpload(content_type, body)
    await upload.begin()
    return upload


def _filename(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("latin-1")
    for escaped, plain in _ESCAPES:
        name = name.replace(escaped, plain)
    return name


def _unreadable() -> InvalidInput:
    return InvalidInput("The body cannot be read as multipart/form-data.")
