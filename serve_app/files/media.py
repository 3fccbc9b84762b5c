"""What kind of file it is, by its first bytes; and what a browser may do with it.

What a client claims is believed only where the bytes do not say otherwise: a claimed image that is HTML is HTML. No kind is
refused, since a file is data until somebody runs it; what matters is how it is given back. There an allow-list decides:
the few kinds of image that browsers only draw may be shown in place, everything else is saved as a file, and what browsers
or machines run goes out as ``application/octet-stream``. The list of what can be drawn is short and stays so; a list of
what can be run is never complete.
"""

from __future__ import annotations

import codecs
import re

HEAD_BYTES = 4_096
"""How much of a file is looked at."""
BINARY = "application/octet-stream"

INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Shown in place; everything else is saved."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"MZ", "application/vnd.microsoft.portable-executable"),
    (0, b"\x7fELF", "application/x-elf"),
    (0, b"\xfe\xed\xfa", "application/x-mach-binary"),
    (0, b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"\xca\xfe\xba\xbe", "application/java-vm"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-cfb"),
)
_RIFF = frozenset({"image/webp", "audio/wav"})

_INSIDE: dict[str, frozenset[str]] = {
    "application/zip": frozenset(
        {
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            "application/vnd.oasis.opendocument.text",
            "application/vnd.oasis.opendocument.spreadsheet",
            "application/epub+zip",
        }
    ),
    "application/x-cfb": frozenset(
        {
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
            "application/vnd.ms-outlook",
        }
    ),
    "video/mp4": frozenset({"audio/mp4", "audio/x-m4a", "video/quicktime", "image/heic", "image/avif"}),
}
"""Kinds that share a container's first bytes: there the claim says which."""

_TEXT_CLAIMS = frozenset(
    {
        *("text/csv", "text/markdown", "text/tab-separated-values", "text/calendar", "text/vcard"),
        *("application/json", "application/x-ndjson", "application/yaml"),
    }
)
_ELEMENTS = (
    (re.compile(r"<(?:!doctype\s+html|html|head|body|script|iframe|meta|style)\b", re.I), "text/html"),
    (re.compile(r"<(?:!doctype\s+svg|svg)\b", re.I), "image/svg+xml"),
)
_PROLOGUE = (("<!--", "-->"), ("<?", "?>"))
"""What may stand before the first element, by how it begins and ends."""
_RUN = frozenset({"text/html", "image/svg+xml", "application/xml", "application/wasm", "application/java-vm"})


def media_type_of(head: bytes, claimed: str = "") -> str:
    """The media type of a file that begins with ``head`` (``HEAD_BYTES`` or all of it), without parameters."""
    claim = claimed.partition(";")[0].strip().lower()
    found = _by_magic(head)
    if found is not None:
        return claim if claim in _INSIDE.get(found, ()) else found
    text = _as_text(head)
    if text is None:
        return BINARY
    return _markup(text) or (claim if claim in _TEXT_CLAIMS else "text/plain")


def is_text(media_type: str) -> bool:
    """Whether it can be read as text by somebody who does not run it."""
    return (
        media_type.startswith("text/")
        or media_type in _TEXT_CLAIMS
        or media_type in {"application/xml", "image/svg+xml"}
    )


def served_type(media_type: str) -> str:
    """The content type it is given back with: nothing that a browser would run, even where a header is lost on the way."""
    if media_type in _RUN or media_type.startswith("application/x-"):
        return BINARY
    return f"{media_type}; charset=utf-8" if is_text(media_type) else media_type


def _by_magic(head: bytes) -> str | None:
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset) and (kind not in _RIFF or head.startswith(b"RIFF")):
            return kind
    return None


def _as_text(head: bytes) -> str | None:
    """The beginning as text, or None for what is none: not UTF-8, or with characters that no text has."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) else text


def _markup(text: str) -> str | None:
    """HTML, SVG or other XML, by the first element; None for other text."""
    rest = text.lstrip("\ufeff \t\r\n\f")
    is_xml = rest[:5].lower() == "<?xml"
    while found := next((pair for pair in _PROLOGUE if rest.startswith(pair[0])), None):
        _, end, rest = rest.partition(found[1])
        if not end:
            break
        rest = rest.lstrip()
    for pattern, kind in _ELEMENTS:
        if pattern.match(rest):
            return kind
    return "application/xml" if is_xml else None
