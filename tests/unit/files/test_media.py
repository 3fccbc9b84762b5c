"""What kind a file is, by its first bytes and whatever was claimed; and what it is given back as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.files.media import BINARY, HEAD_BYTES, INLINE, is_text, media_type_of, served_type
from serve_app.files.names import MAX_NAME_BYTES, MAX_NAME_CHARS, clean_name, content_disposition, segment

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("head", "claimed", "kind"),
    [
        (b"PK\x03\x04", DOCX, DOCX),
        (b"PK\x03\x04", "image/png", "application/zip"),
        (b"RIFF....WEBPVP8 ", "", "image/webp"),
        (b"RIFF....WAVEfmt ", "", "audio/wav"),
        (b"....\x00...WEBP", "image/webp", BINARY),
        (b"....ftypmp42", "audio/mp4", "audio/mp4"),
        (b"....ftypmp42", "text/html", "video/mp4"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b"a;b", "TEXT/CSV; header=present", "text/csv"),
        (b"#!/bin/sh\nrm", "image/png", "text/plain"),
        (b"\xef\xbb\xbf<html>", "", "text/html"),
        (b"<svg xmlns='x'>", "", "image/svg+xml"),
        (b"<?xml version='1.0'?><!-- c --><!DOCTYPE svg><svg>", "text/plain", "image/svg+xml"),
        (b"<?xml version='1.0'?><feed>", "", "application/xml"),
        (b"<?xml version='1.0'?>\n<html xmlns='x'>", "", "text/html"),
        (b"a < b", "", "text/plain"),
        ("größer".encode(), "", "text/plain"),
        ("größer".encode("latin-1"), "text/plain", BINARY),
        ("x".encode("utf-16"), "text/plain", BINARY),
        (("a" * (HEAD_BYTES - 1) + "ü").encode()[:HEAD_BYTES], "", "text/plain"),
    ],
)
def test_the_content_decides_and_the_claim_only_where_it_agrees(head: bytes, claimed: str, kind: str) -> None:
    assert media_type_of(head, claimed) == kind


@given(st.binary(max_size=64), st.text(max_size=40))
def test_no_content_and_no_claim_makes_a_browser_run_anything(head: bytes, claimed: str) -> None:
    kind = media_type_of(head, claimed)
    served = served_type(kind)
    assert kind.isascii()
    assert not any(word in served for word in ("html", "svg", "xml;", "javascript", "wasm"))
    if kind in INLINE:
        assert not is_text(kind)


@given(st.text(max_size=400))
def test_any_name_becomes_one_that_can_be_saved_and_sent(given_name: str) -> None:
    name = clean_name(given_name)
    assert 0 < len(name) <= MAX_NAME_CHARS
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert not set(name) & set("/\\\r\n\0")
    assert name.strip(". ")
    assert clean_name(name) == name
    header = content_disposition(name, inline=False)
    assert header.isascii()
    assert header.isprintable()


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_owners_never_share_a_folder(one: str, other: str) -> None:
    assert (segment(one) == segment(other)) == (one == other)
    assert segment(one).lower() == segment(one)
    assert len(segment(one)) <= 120
    assert set(segment(one)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-=")
