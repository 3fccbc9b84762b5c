"""Names: what a client calls a file, made harmless; and what owners are called where files lie."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import quote

MAX_NAME_CHARS = 200
MAX_NAME_BYTES = 255
MAX_SEGMENT_CHARS = 120
NAMELESS = "file"

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,19}$")


def clean_name(given: str) -> str:
    """A name that can be shown and saved: no folders, no control or direction characters, at most 200 characters and 255
    bytes, its suffix kept.
    """
    text = given.encode("utf-8", "replace").decode("utf-8")
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    # Control, format (which turn the direction of writing, hiding a suffix), unassigned and private characters.
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " if c.isspace() else "" for c in base)
    name = " ".join(kept.split())
    if not name.strip(". "):
        return NAMELESS
    found = _SUFFIX.search(name)
    suffix = found[0] if found and found.start() > 0 else ""
    stem = name[: len(name) - len(suffix)][: MAX_NAME_CHARS - len(suffix)]
    while len((stem + suffix).encode()) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem.rstrip() + suffix


def content_disposition(name: str, *, inline: bool) -> str:
    """The header's value, with the name in ASCII for old clients and as RFC 5987 writes it for the others."""
    ascii_name = "".join(c if 32 <= ord(c) < 127 and c not in '"\\%' else "_" for c in name)
    return f"{'inline' if inline else 'attachment'}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


def segment(owner_id: str) -> str:
    """A tenant's or user's id as one folder name: lower case, reversible in effect (two ids never share one), never ``.`` or
    ``..``, and short enough for every file system.
    """
    if not owner_id:
        return "=z"
    encoded = "".join(
        chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in owner_id.encode("utf-8", "surrogatepass")
    )
    if len(encoded) <= MAX_SEGMENT_CHARS:
        return encoded
    return f"=h{hashlib.sha256(owner_id.encode('utf-8', 'surrogatepass')).hexdigest()}"
