"""A user's files: upload, list, download with ranges and conditions, delete.

An upload is read as it comes, and never as a whole; a download is sent in pieces as the client takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from serve_app.domain.identity import Principal
from serve_app.errors import Conflict, DeadlineExceeded, InvalidInput, Overloaded
from serve_app.files.conditions import Answer, answer_to
from serve_app.files.media import INLINE, served_type
from serve_app.files.multipart import begin_upload
from serve_app.files.names import content_disposition
from serve_app.files.port import MAX_PAGE, FileKey, StoredFile
from serve_app.ingress.dependencies import Caller, RequestId, Services, problems
from serve_app.ingress.limits import FILE_PATH, ConnectionCount
from serve_app.ingress.services import IngressServices
from serve_app.settings import FileSettings
from serve_app.wire.files import FilePage, FileView
from serve_app.wire.problems import encode_problem

IDLE_S = 30.0
"""How long an upload may send nothing."""
SLOWEST_BYTES_PER_S = 65_536
"""An upload of the largest file may take as long as this rate makes it, and ``IDLE_S``; a smaller one as long."""
MAX_UPLOADS = 64
"""Uploads that one replica takes at once: each holds two pieces in memory."""
MAX_UPLOADS_PER_USER = 8
"""Those of them that one user may have."""
FILE_CSP = "default-src 'none'; sandbox"
"""Whatever is in a file, nothing of it runs where a browser shows it from here."""

Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]

router = APIRouter(prefix=FILE_PATH, tags=["files"])


class Uploads:
    """Those that a replica takes just now."""

    def __init__(self) -> None:
        self._by_user = ConnectionCount(MAX_UPLOADS_PER_USER)

    @property
    def total(self) -> int:
        return self._by_user.total

    @contextmanager
    def one_of(self, caller: Principal) -> Iterator[None]:
        """Counts one more while it lasts. Raises Overloaded beyond what a replica, or a user, may have at once."""
        user = (caller.tenant_id, caller.user_id)
        if self.total >= MAX_UPLOADS:
            raise Overloaded("Too many files are being uploaded here; try again in a moment.", None, 1.0)
        if not self._by_user.enter(user):
            raise Overloaded(
                f"You are uploading {MAX_UPLOADS_PER_USER} files already; try again when one is done.", None, 1.0
            )
        try:
            yield
        finally:
            self._by_user.leave(user)


_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                },
                "example": {"file": "(the file's content)"},
            }
        },
    }
}
_HEADERS = ("range", "if-range", "if-none-match", "if-modified-since", "if-match", "if-unmodified-since")
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": "(the file's content)",
            }
        },
    },
    206: {"description": "The range that was asked for"},
    304: {"description": "As the client has it already"},
    412: {"description": "No longer the file that `If-Match` names"},
    416: {"description": "A range that the file does not have"},
}
_PARAMETERS = {
    "parameters": [
        {"in": "header", "name": name, "required": False, "schema": {"type": "string"}}
        for name in ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
    ]
}


@router.post(
    "",
    status_code=201,
    summary="Upload a file",
    responses=problems(400, 403, 413, 429),
    response_model=FileView,
    openapi_extra=_UPLOAD_BODY,
)
async def upload(request: Request, caller: Caller, services: Services) -> Response:
    """One file as `multipart/form-data`. What kind it is its content decides. The `file_id` goes into a query's `attachments`."""
    uploads: Uploads = request.app.state.uploads
    with uploads.one_of(caller):
        try:
            file = await _keep(request, caller, services)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
    view = await _view(services, file)
    return Response(
        view.model_dump_json(),
        201,
        {"location": f"{FILE_PATH}/{view.file_id}", "etag": f'"{file.etag}"'},
        "application/json",
    )


async def _keep(request: Request, caller: Principal, services: IngressServices) -> StoredFile:
    """Raises DeadlineExceeded for an upload that takes too long, however steadily it goes on."""
    within_s = upload_deadline_s(services.settings.files)
    deadline = asyncio.timeout(within_s)
    try:
        async with deadline:
            body = await begin_upload(request.headers.get("content-type", ""), _arriving(request.stream()))
            return await services.files.put(
                caller,
                body.chunks(),
                name=body.name,
                claimed_type=body.media_type,
                expected_bytes=_announced(request),
            )
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"The upload took longer than {within_s:.0f} seconds.") from None


def upload_deadline_s(limits: FileSettings) -> float:
    """How long one upload may take, from its first byte until its file is kept."""
    return IDLE_S + limits.max_bytes / SLOWEST_BYTES_PER_S


@router.get("", summary="List files", responses=problems())
async def list_files(caller: Caller, services: Services, cursor: Cursor = None, limit: Limit = 50) -> FilePage:
    """Newest first."""
    page = await services.files.list_files(caller, cursor=cursor, limit=limit)
    return FilePage(items=[await _view(services, file) for file in page.items], next_cursor=page.next_cursor)


@router.get("/{file_id}", summary="One file's description", responses=problems(404))
async def describe(file_id: str, caller: Caller, services: Services) -> FileView:
    return await _view(services, await services.files.stat(FileKey.of(caller, file_id)))


@router.delete("/{file_id}", status_code=204, summary="Delete a file", responses=problems(404))
async def delete(file_id: str, caller: Caller, services: Services) -> Response:
    """Messages that it went with stay."""
    await services.files.delete(FileKey.of(caller, file_id))
    return Response(status_code=204)


@router.get(
    "/{file_id}/download",
    summary="Download a file",
    response_class=StreamingResponse,
    responses=_DOWNLOAD | problems(404),
    openapi_extra=_PARAMETERS,
)
async def download(
    file_id: str, request: Request, caller: Caller, services: Services, request_id: RequestId
) -> Response:
    """Images are shown in place, everything else is saved. One `Range` is served; several are answered with the whole file."""
    return await _download(file_id, request, caller, services, request_id)


@router.head("/{file_id}/download", include_in_schema=False)
async def download_head(
    file_id: str, request: Request, caller: Caller, services: Services, request_id: RequestId
) -> Response:
    return await _download(file_id, request, caller, services, request_id)


async def _download(
    file_id: str, request: Request, caller: Principal, services: IngressServices, request_id: str
) -> Response:
    file = await services.files.stat(FileKey.of(caller, file_id))
    given = {name: value for name in _HEADERS if (value := ", ".join(request.headers.getlist(name)))}
    answer = answer_to(
        given,
        etag=file.etag,
        modified=file.created_at,
        size_bytes=file.size_bytes,
        ranges=request.method == "GET",
    )
    headers = {
        "etag": f'"{file.etag}"',
        "last-modified": format_datetime(file.created_at.replace(microsecond=0), usegmt=True),
        "cache-control": "private, no-cache",
        "accept-ranges": "bytes",
    }
    if answer.status in {412, 416}:
        refusal = _refusal(answer, file, request_id)
        # What its length says is said of a GET; HEAD has no body.
        return Response(None, refusal.status_code, refusal.headers) if request.method == "HEAD" else refusal
    if answer.status == 304:
        return Response(status_code=304, headers=headers)
    headers |= {
        "content-type": served_type(file.media_type),
        "content-length": str(answer.length),
        "content-disposition": content_disposition(file.name, inline=file.media_type in INLINE),
        "content-security-policy": FILE_CSP,
        "x-content-type-options": "nosniff",
    }
    if answer.status == 206:
        last = answer.start + answer.length - 1
        headers["content-range"] = f"bytes {answer.start}-{last}/{file.size_bytes}"
    if request.method == "HEAD":
        return Response(status_code=answer.status, headers=headers)
    content = await services.files.read(file, answer.start, answer.length)
    return StreamingResponse(content, answer.status, headers)


def _refusal(answer: Answer, file: StoredFile, request_id: str) -> Response:
    if answer.status == 412:
        changed = Conflict("The file is not the one that If-Match or If-Unmodified-Since names.")
        problem = encode_problem(changed, request_id, status=412, title="Precondition failed")
        return Response(problem.body, problem.status, problem.headers)
    outside = InvalidInput(f"The range lies outside the file, which has {file.size_bytes} bytes.")
    problem = encode_problem(outside, request_id, status=416, title="Range not satisfiable")
    return Response(problem.body, problem.status, problem.headers | {"content-range": f"bytes */{file.size_bytes}"})


async def _view(services: IngressServices, file: StoredFile) -> FileView:
    return FileView.of(file, await services.files.url(file))


def _announced(request: Request) -> int:
    """About how large the file is, by what the request says; a little less, so that nobody is refused who need not be."""
    length = request.headers.get("content-length", "")
    return max(0, int(length[:18]) - 1_024) if length.isdecimal() else 0


async def _arriving(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The body's chunks, each within ``IDLE_S``. Raises DeadlineExceeded."""
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise DeadlineExceeded(f"The upload sent nothing for {IDLE_S:g} seconds.") from None
        if chunk is None:
            return
        yield chunk
