"""Files as HTTP answers them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serve_app.files.port import StoredFile

_EXAMPLE: dict[str, JsonValue] = {
    "file_id": "f_01JC2Z6V4S8N0Q5T7X9B3D1F2G",
    "name": "opportunities.csv",
    "media_type": "text/csv",
    "bytes": 18342,
    "url": "/api/file/f_01JC2Z6V4S8N0Q5T7X9B3D1F2G/download",
    "etag": "9f86d081884c7d659a2feaa0c55ad015",
    "created_at": "2026-11-02T09:31:12.408Z",
}


class FileView(BaseModel):
    """`url` is where it is downloaded: a path of this server, or a signed address that is good for a while. `media_type` is
    what its content says, whatever was claimed.
    """

    file_id: str
    name: str
    media_type: str
    bytes: int
    url: str
    etag: str
    created_at: datetime

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_EXAMPLE]})

    @classmethod
    def of(cls, file: StoredFile, url: str) -> FileView:
        return cls(
            file_id=file.key.file_id,
            name=file.name,
            media_type=file.media_type,
            bytes=file.size_bytes,
            url=url,
            etag=file.etag,
            created_at=file.created_at,
        )


class FilePage(BaseModel):
    """``next_cursor`` is opaque and null on the last page."""

    items: list[FileView]
    next_cursor: Annotated[str | None, Field(examples=[None])]

    model_config = ConfigDict(frozen=True)
