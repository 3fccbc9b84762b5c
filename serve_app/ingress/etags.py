"""Etags of records in the headers of requests and answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Response


def set_etag(response: Response, etag: str) -> None:
    response.headers["etag"] = f'"{etag}"'


async def if_match_of(
    if_match: Annotated[
        str | None, Header(max_length=200, description="The etag read before; refused with 409 when it is not current")
    ] = None,
) -> str | None:
    """The etag inside an If-Match; None without one, and for ``*``, which matches whatever there is."""
    if if_match is None or if_match.strip() == "*":
        return None
    return if_match.strip().removeprefix("W/").strip('"')


IfMatch = Annotated[str | None, Depends(if_match_of)]
