"""Files over HTTP: upload, download with ranges and conditions, list, delete, and files that go with a query."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI

from serve_app.credentials import Secrets
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.errors import NotFound, Overloaded
from serve_app.files.attachments import Attachment, check_attachments, read_attachments
from serve_app.files.connect import open_files
from serve_app.files.filesystem import FilesystemFiles
from serve_app.files.port import FILE_ID, StoredFile
from serve_app.identity.development import DEFAULT_TENANT
from serve_app.ingress import files
from serve_app.ingress.app import create_app
from serve_app.ingress.limits import MULTIPART_BYTES
from serve_app.ingress.services import IngressServices
from serve_app.settings import FileSettings, Settings
from tests.unit.ingress.asgi import Client, Exchange, Frame, Reply, http_scope
from tests.unit.ingress.stages import Stages

ANA = Principal(tenant_id=DEFAULT_TENANT, user_id="ana", roles=("sales",))
CONTENT = b"0123456789" * 10
BOUNDARY = "b0undary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(content: bytes, name: str = "a.txt", claimed: str | None = "text/plain", field: str = "file") -> bytes:
    kind = f"Content-Type: {claimed}\r\n" if claimed else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n{kind}\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def upload(
    client: Client, content: bytes = CONTENT, name: str = "a.txt", claimed: str | None = "text/plain"
) -> Reply:
    return await client.request("POST", "/api/file", raw=form(part(content, name, claimed)), headers=FORM)


async def uploaded(client: Client, *args: Any) -> dict[str, Any]:
    reply = await upload(client, *args)
    assert reply.status == 201, reply.body
    view: dict[str, Any] = reply.json()
    return view


async def listed(client: Client) -> list[str]:
    return [item["file_id"] for item in (await client.request("GET", "/api/file")).json()["items"]]


def limited(stages: Stages, **limits: Any) -> Client:
    settings = Settings(store="memory", files=FileSettings(**limits))
    return Client(create_app(stages.services(settings)), {"x-dev-user": "ana"})


def sending(app: FastAPI, messages: list[Frame]) -> Exchange:
    """An upload whose body arrives as these messages."""
    inbox: asyncio.Queue[Frame] = asyncio.Queue()
    outbox: asyncio.Queue[Frame] = asyncio.Queue()
    for message in messages:
        inbox.put_nowait(message)
    scope = http_scope("POST", "/api/file", {"x-dev-user": "ana", **FORM})

    async def send(message: Any) -> None:
        await outbox.put(dict(message))

    return Exchange(asyncio.ensure_future(app(scope, inbox.get, send)), inbox, outbox)


def body(chunk: bytes, more: bool = True) -> Frame:
    return {"type": "http.request", "body": chunk, "more_body": more}


# Upload


async def test_an_upload_says_what_it_became_and_can_be_downloaded(client: Client) -> None:
    reply = await upload(client, b"a,b\n1,2\n", "table.csv", "text/csv; charset=utf-8")
    view = reply.json()
    assert reply.status == 201
    assert FILE_ID.fullmatch(view["file_id"])
    assert {key: view[key] for key in ("name", "media_type", "bytes")} == {
        "name": "table.csv",
        "media_type": "text/csv",
        "bytes": 8,
    }
    assert view["url"] == f"/api/file/{view['file_id']}/download"
    assert reply.headers["location"] == f"/api/file/{view['file_id']}"
    assert (await client.request("GET", reply.headers["location"])).json() == view
    got = await client.request("GET", view["url"])
    assert (got.status, got.body) == (200, b"a,b\n1,2\n")
    assert got.headers["content-type"] == "text/csv; charset=utf-8"
    assert got.headers["content-length"] == "8"
    assert got.headers["etag"] == f'"{view["etag"]}"' == reply.headers["etag"]
    assert got.headers["cache-control"] == "private, no-cache"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]


async def test_a_body_in_single_bytes_is_the_same_file(app: FastAPI, client: Client) -> None:
    whole = form(part(b"some\r\n--b0undar content\r\n", "x.bin", None))
    exchange = sending(app, [*(body(whole[i : i + 1]) for i in range(len(whole))), body(b"", more=False)])
    view = (await exchange.reply()).json()
    assert (await client.request("GET", view["url"])).body == b"some\r\n--b0undar content\r\n"


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"{}", {"content-type": "application/json"}),
        (b"x", {"content-type": "multipart/form-data"}),
        (b"x", {"content-type": f"multipart/form-data; boundary={'b' * 400}"}),
        (b"nothing of the kind", FORM),
        (form(), FORM),
        (form(b'--b0undary\r\nContent-Disposition: form-data; name="file"\r\n\r\nno filename\r\n'), FORM),
        (form(part(b"one"), part(b"two")), FORM),
        (form(part(b"one"), b'--b0undary\r\nContent-Disposition: form-data; name="also"\r\n\r\nx\r\n'), FORM),
        (part(b"never ended"), FORM),
        (form(part(b"")), FORM),
        (form(b"--b0undary\r\n" + b"X-Long: " + b"y" * 100_000 + b"\r\n\r\n\r\n"), FORM),
    ],
)
async def test_a_body_that_is_not_one_file_is_refused_and_leaves_nothing(
    client: Client, raw: bytes, headers: dict[str, str]
) -> None:
    reply = await client.request("POST", "/api/file", raw=raw, headers=headers)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")
    assert await listed(client) == []


async def test_too_large_a_file_is_413_with_the_limit_whether_announced_or_not(stages: Stages) -> None:
    client = limited(stages, max_bytes=1000)
    sentence = "The file is larger than 1000 bytes."
    reply = await upload(client, b"x" * 1001)
    assert (reply.status, reply.json()["code"], reply.json()["detail"]) == (413, "too_large", sentence)
    announced = await client.request(
        "POST", "/api/file", raw=b"x", headers=FORM | {"content-length": str(1001 + MULTIPART_BYTES)}
    )
    assert (announced.status, announced.json()["detail"]) == (413, sentence)
    assert (await upload(client, b"x" * 1000)).status == 201
    assert len(await listed(client)) == 1


async def test_a_body_far_beyond_the_limit_is_not_read_to_its_end(stages: Stages) -> None:
    app = limited(stages, max_bytes=1000).app
    assert isinstance(app, FastAPI)
    exchange = sending(app, [body(part(b"x" * 2000))])
    assert (await exchange.reply()).status == 413


async def test_the_default_limit_of_bodies_does_not_count_for_files(client: Client) -> None:
    reply = await upload(client, b"x" * 2_000_000)
    assert reply.status == 201


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(app: FastAPI, client: Client, stages: Stages) -> None:
    exchange = sending(app, [body(part(b"x" * 1000)[:500]), {"type": "http.disconnect"}])
    await asyncio.wait_for(exchange.task, 10)
    assert await listed(client) == []
    assert (await stages.services().files.usage(ANA)).files == 0


async def test_an_upload_that_stalls_is_given_up(app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "IDLE_S", 0.01)
    reply = await sending(app, [body(part(b"x" * 1000)[:500])]).reply()
    assert (reply.status, reply.json()["code"]) == (504, "deadline_exceeded")
    assert await listed(client) == []


async def test_more_uploads_than_a_replica_takes_are_told_to_come_back(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UPLOADS", 1)
    app = create_app(stages.services())
    client = Client(app, {"x-dev-user": "ana"})
    first = sending(app, [body(part(b"x" * 1000)[:500])])
    async with asyncio.timeout(10):
        while not app.state.uploads.total:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
    second = await upload(client)
    assert (second.status, second.json()["code"], second.headers["retry-after"]) == (503, "overloaded", "1")
    first.inbox.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(first.task, 10)
    assert (await upload(client)).status == 201


async def test_one_user_does_not_take_all_places_from_others(
    app: FastAPI, client: Client, stranger: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [sending(app, [body(part(b"x" * 1000)[:500])]) for _ in range(files.MAX_UPLOADS)]
    async with asyncio.timeout(30):
        while app.state.uploads.total + sum(one.task.done() for one in many) < len(many):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert app.state.uploads.total == files.MAX_UPLOADS_PER_USER < files.MAX_UPLOADS
    refused = await upload(client)
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert (await upload(stranger)).status == 201
    for one in many:
        one.inbox.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(asyncio.gather(*(one.task for one in many)), 30)
    assert (await upload(client)).status == 201


async def test_an_upload_that_goes_on_and_on_is_given_up(
    app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def remembered(delay: float | None) -> asyncio.Timeout:
        deadlines.append(timeout(delay))
        return deadlines[-1]

    monkeypatch.setattr("serve_app.ingress.files.asyncio.timeout", remembered)
    exchange = sending(app, [body(part(b"x" * 1000)[:500])])
    async with timeout(30):
        while len(deadlines) < 3:  # noqa: ASYNC110 - the first is of the whole, the others of its chunks
            await asyncio.sleep(0)
    now = asyncio.get_running_loop().time()
    whole = deadlines[0].when()
    assert whole is not None
    within_s = files.upload_deadline_s(FileSettings())
    assert now + files.IDLE_S < whole <= now + within_s
    assert within_s == files.IDLE_S + FileSettings().max_bytes / files.SLOWEST_BYTES_PER_S
    deadlines[0].reschedule(now)
    exchange.inbox.put_nowait(body(b"x"))
    reply = await exchange.reply()
    assert (reply.status, reply.json()["code"]) == (504, "deadline_exceeded")
    assert "longer than" in reply.json()["detail"]
    assert await listed(client) == []


async def test_a_full_account_is_429_and_trying_again_does_not_help(stages: Stages) -> None:
    client = limited(stages, max_files_per_user=1)
    assert (await upload(client)).status == 201
    reply = await upload(client)
    assert (reply.status, reply.json()["code"], reply.json()["retryable"]) == (429, "quota_exceeded", False)
    small = limited(stages, max_bytes_per_user=100_000)
    announced = await small.request(
        "POST", "/api/file", raw=form(part(b"x")), headers=FORM | {"content-length": "102000"}
    )
    assert announced.status == 429


# Names and kinds


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../secret.txt", "secret.txt"),
        ("a%22b.txt", 'a"b.txt'),
        ("a%0D%0ASet-Cookie: x.txt", "a Set-Cookie: x.txt"),
        ("文件 ü.txt", "文件 ü.txt"),
        ("n" * 300 + ".txt", "n" * 196 + ".txt"),
        ("", "file"),
    ],
)
async def test_a_name_comes_back_harmless_and_exact_for_who_can_read_it(client: Client, given: str, shown: str) -> None:
    view = await uploaded(client, CONTENT, given)
    assert view["name"] == shown
    header = (await client.request("GET", view["url"])).headers["content-disposition"]
    kind, plain, extended = header.split("; ", 2) if ";" not in shown else (header, "", "")
    assert kind == "attachment"
    assert plain.isascii()
    assert plain.count('"') == 2
    assert not {"\r", "\n"} & set(header)
    assert unquote(extended.removeprefix("filename*=UTF-8''")) == shown


@pytest.mark.parametrize(
    ("content", "claimed", "kind", "served", "how"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png", "image/png", "image/png", "inline"),
        (b"\xff\xd8\xff\xe0....", "text/html", "image/jpeg", "image/jpeg", "inline"),
        (b"<!DOCTYPE html><script>1</script>", "image/png", "text/html", "application/octet-stream", "attachment"),
        (b"  <!-- x -->\n<ScRiPt>1</script>", "text/plain", "text/html", "application/octet-stream", "attachment"),
        (
            b'<?xml version="1.0"?><svg onload="x"/>',
            "image/svg+xml",
            "image/svg+xml",
            "application/octet-stream",
            "attachment",
        ),
        (b"MZ\x90\x00", "image/gif", "application/vnd.microsoft.portable-executable", None, "attachment"),
        (b"%PDF-1.7", "application/pdf", "application/pdf", "application/pdf", "attachment"),
        (b"plain", "text/javascript", "text/plain", "text/plain; charset=utf-8", "attachment"),
        (b"plain", "x\r\ny: z", "text/plain", "text/plain; charset=utf-8", "attachment"),
        (b"\x00\x01\x02", "image/png", "application/octet-stream", "application/octet-stream", "attachment"),
        (b"<!---->" * 500 + b"x", None, "text/plain", "text/plain; charset=utf-8", "attachment"),
    ],
)
async def test_only_images_that_are_images_are_shown_in_place_and_nothing_runs(
    client: Client, content: bytes, claimed: str | None, kind: str, served: str | None, how: str
) -> None:
    reply = await upload(client, content, "cat.png", claimed)
    if reply.status == 422:  # a header with a line break in it is not a header
        assert "\n" in (claimed or "")
        return
    assert reply.json()["media_type"] == kind
    got = await client.request("GET", reply.json()["url"])
    assert got.headers["content-type"] == (served or kind)
    assert got.headers["content-disposition"].startswith(f"{how};")
    assert (got.headers["x-content-type-options"], got.headers["content-security-policy"]) == (
        "nosniff",
        files.FILE_CSP,
    )


# Download


@pytest.mark.parametrize(
    ("asked", "status", "content", "described"),
    [
        ("bytes=0-9", 206, CONTENT[:10], "bytes 0-9/100"),
        ("bytes=95-", 206, CONTENT[95:], "bytes 95-99/100"),
        ("bytes=-5", 206, CONTENT[-5:], "bytes 95-99/100"),
        ("bytes=-500", 206, CONTENT, "bytes 0-99/100"),
        ("bytes=99-1000", 206, CONTENT[99:], "bytes 99-99/100"),
        ("bytes=0-0", 206, CONTENT[:1], "bytes 0-0/100"),
        ("BYTES=0-0", 206, CONTENT[:1], "bytes 0-0/100"),
        ("bytes=100-", 416, None, "bytes */100"),
        ("bytes=-0", 416, None, "bytes */100"),
        ("bytes=99999999999999999999-", 200, CONTENT, None),
        ("bytes=0-1,5-6", 200, CONTENT, None),
        ("bytes=9-0", 200, CONTENT, None),
        ("bytes=-", 200, CONTENT, None),
        ("bytes=a-b", 200, CONTENT, None),
        ("lines=1-2", 200, CONTENT, None),
        ("", 200, CONTENT, None),
    ],
)
async def test_a_range_is_served_exactly_or_refused_or_ignored_as_the_standard_says(
    client: Client, asked: str, status: int, content: bytes | None, described: str | None
) -> None:
    view = await uploaded(client)
    reply = await client.request("GET", view["url"], headers={"range": asked})
    assert reply.status == status
    assert reply.headers.get("content-range") == described
    if content is None:
        assert reply.json()["code"] == "invalid_input"
    else:
        assert reply.body == content
        assert reply.headers["content-length"] == str(len(content))
        assert reply.headers["accept-ranges"] == "bytes"


async def test_conditions_are_judged_by_etag_first_and_by_date_else(client: Client) -> None:
    view = await uploaded(client)
    tag = f'"{view["etag"]}"'
    modified = (await client.request("GET", view["url"])).headers["last-modified"]
    early, late = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    cases: list[tuple[dict[str, str], int]] = [
        ({"if-none-match": tag}, 304),
        ({"if-none-match": f'"x", W/{tag}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-none-match": '"x"', "if-modified-since": late}, 200),
        ({"if-modified-since": modified}, 304),
        ({"if-modified-since": early}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-modified-since": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, 200),
        ({"if-unmodified-since": "Mon, 01 Jan 2001 00:00:00 +99999999999999999"}, 200),
        ({"range": "bytes=0-1", "if-range": "Mon, 01 Jan 2001 99999999999999999999:00:00 GMT"}, 200),
        ({"if-match": tag}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": f"W/{tag}"}, 412),
        ({"if-match": '"x"'}, 412),
        ({"if-unmodified-since": early}, 412),
        ({"if-unmodified-since": modified}, 200),
        ({"if-match": tag, "if-none-match": tag}, 304),
        ({"range": "bytes=0-1", "if-range": tag}, 206),
        ({"range": "bytes=0-1", "if-range": modified}, 206),
        ({"range": "bytes=0-1", "if-range": f"W/{tag}"}, 200),
        ({"range": "bytes=0-1", "if-range": '"x"'}, 200),
        ({"range": "bytes=0-1", "if-range": early}, 200),
        ({"range": "bytes=500-", "if-none-match": tag}, 304),
    ]
    for headers, status in cases:
        reply = await client.request("GET", view["url"], headers=headers)
        assert reply.status == status, headers
        if status == 304:
            assert (reply.body, reply.headers["etag"]) == (b"", tag)
        if status == 412:
            assert (reply.json()["code"], reply.json()["status"]) == ("conflict", 412)


async def test_head_answers_as_get_without_a_body_and_takes_no_range(client: Client) -> None:
    view = await uploaded(client)
    full = await client.request("GET", view["url"])
    head = await client.request("HEAD", view["url"], headers={"range": "bytes=0-1"})
    volatile = {"x-request-id"}
    assert (head.status, head.body) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k not in volatile} == {
        k: v for k, v in full.headers.items() if k not in volatile
    }
    assert (await client.request("HEAD", view["url"], headers={"if-none-match": full.headers["etag"]})).status == 304
    refused = await client.request("HEAD", view["url"], headers={"if-match": '"x"'})
    assert (refused.status, refused.body) == (412, b"")
    assert refused.headers["content-type"].startswith("application/problem+json")


async def test_another_users_file_is_answered_exactly_as_a_missing_one(client: Client, stranger: Client) -> None:
    view = await uploaded(client)
    missing = "f_01JC2Z6V4S8N0Q5T7X9B3D1F2G"
    for method, suffix in [("GET", ""), ("GET", "/download"), ("HEAD", "/download"), ("DELETE", "")]:
        answers = []
        for file_id in (view["file_id"], missing, "f_nothing", "..%2f..%2fetc", "x" * 500):
            reply = await stranger.request(method, f"/api/file/{file_id}{suffix}", headers={"x-request-id": "same"})
            answers.append((reply.status, reply.headers, reply.body))
        assert answers[0][0] == 404
        assert all(answer == answers[0] for answer in answers)
    assert await listed(stranger) == []
    assert (await client.request("GET", view["url"])).status == 200


# List and delete


async def test_files_are_listed_newest_first_in_pages_and_gone_once_deleted(client: Client) -> None:
    made = [(await uploaded(client))["file_id"] for _ in range(3)]
    first = (await client.request("GET", "/api/file", query="limit=2")).json()
    second = (await client.request("GET", "/api/file", query=f"limit=2&cursor={first['next_cursor']}")).json()
    shown = [item["file_id"] for item in first["items"] + second["items"]]
    assert shown == sorted(made, reverse=True)
    assert second["next_cursor"] is None
    assert (await client.request("DELETE", f"/api/file/{made[0]}")).status == 204
    assert (await client.request("DELETE", f"/api/file/{made[0]}")).status == 404
    assert made[0] not in await listed(client)
    for query in ("cursor=abc", "limit=0", "limit=100000", "cursor=" + "x" * 100):
        assert (await client.request("GET", "/api/file", query=query)).status == 422


class AwayFiles:
    """A store that cannot be reached. Stands in for the whole port; the rest is never asked."""

    async def put(self, owner: Principal, chunks: AsyncIterable[bytes], **_: object) -> StoredFile:
        raise Overloaded("Blob Storage cannot be reached; try again in a moment.")

    async def stat(self, key: object) -> StoredFile:
        raise Overloaded("Blob Storage cannot be reached; try again in a moment.")

    async def list_files(self, owner: Principal, **_: object) -> object:
        raise Overloaded("Blob Storage cannot be reached; try again in a moment.")


async def test_a_store_that_is_away_is_a_503_that_says_so(stages: Stages) -> None:
    services = IngressServices(**{**vars(stages.services()), "files": AwayFiles()})
    client = Client(create_app(services), {"x-dev-user": "ana"})
    file_id = "f_01JC2Z6V4S8N0Q5T7X9B3D1F2G"
    replies = [await upload(client), await client.request("GET", "/api/file")]
    replies += [await client.request("GET", f"/api/file/{file_id}{suffix}") for suffix in ("", "/download")]
    for reply in replies:
        assert (reply.status, reply.json()["code"]) == (503, "overloaded")
        assert "Blob Storage" in reply.json()["detail"]


# Files that go with a query


async def test_a_query_may_name_its_senders_files_and_its_turn_keeps_them(client: Client, stages: Stages) -> None:
    view = await uploaded(client)
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("conv-1")
        socket.send(type="query", content="What is in it?", attachments=[view["file_id"]])
        started = (await socket.frames_until("chat_response"))[0]
    turn = await stages.store.get_turn(TurnKey.of(ANA, started["turn_id"]))
    assert (turn.query.content, turn.query.attachments) == ("What is in it?", (view["file_id"],))


@pytest.mark.parametrize(
    ("attachments", "code"),
    [
        (["f_01JC2Z6V4S8N0Q5T7X9B3D1F2G"], "not_found"),
        (["stranger's"], "not_found"),
        (["../../etc/passwd"], "invalid_input"),
        (["mine"] * 11, "invalid_input"),
    ],
)
async def test_a_query_with_other_files_is_refused_before_it_is_stored(
    client: Client, stranger: Client, attachments: list[str], code: str
) -> None:
    ids = {
        "mine": (await uploaded(client))["file_id"],
        "stranger's": (await uploaded(stranger))["file_id"],
    }
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("conv-1")
        socket.send(type="query", content="Hi", attachments=[ids.get(name, name) for name in attachments])
        frame = await socket.frame()
    assert (frame["type"], frame["code"]) == ("error", code)
    assert frame["message"].startswith("attachments: ")
    listing = await client.request("GET", "/api/conversations/conv-1/messages")
    assert json.loads(listing.body)["items"] == []


@pytest.mark.parametrize("gone", ["deleted", "away"])
async def test_a_repeated_query_is_given_its_turn_though_its_file_cannot_be_found_any_more(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    file_id = (await uploaded(client))["file_id"]
    query = {"type": "query", "content": "What is in it?", "attachments": [file_id]}
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("conv-1")
        socket.send(**query, client_turn_id="k1")
        first = await socket.frames_until("chat_response")
        if gone == "deleted":
            assert (await client.request("DELETE", f"/api/file/{file_id}")).status == 204
        else:

            async def away(*_: object) -> StoredFile:
                raise Overloaded("The files on disk cannot be reached.")

            monkeypatch.setattr(FilesystemFiles, "stat", away)
        socket.send(**query, client_turn_id="k1")
        assert await socket.frames_until("chat_response") == first
        code = "not_found" if gone == "deleted" else "overloaded"
        for other in ({"client_turn_id": "k2"}, {}, {"client_turn_id": "k1", "content": "And now?"}):
            socket.send(**{**query, **other})
            frame = await socket.frame()
            assert (frame["type"], frame["code"]) == ("error", code), other
    assert len(stages.turns.runs) == 1
    listing = await client.request("GET", "/api/conversations/conv-1/messages")
    assert [item["role"] for item in listing.json()["items"]] == ["user", "assistant"]


async def test_on_several_machines_with_the_local_store_uploads_are_refused_with_what_to_do(stages: Stages) -> None:
    several = Settings(store="local", replica_host="::")
    services = IngressServices(**{**vars(stages.services()), "files": open_files(several, Secrets())})
    await services.files.check()
    client = Client(create_app(services), {"x-dev-user": "ana"})
    reply = await upload(client)
    assert (reply.status, reply.json()["code"], reply.json()["retryable"]) == (403, "not_permitted", False)
    assert "PARLEY_STORE=azure" in reply.json()["detail"]
    assert await listed(client) == []
    file_id = "f_01JC2Z6V4S8N0Q5T7X9B3D1F2G"
    for method, suffix in (("GET", ""), ("GET", "/download"), ("DELETE", "")):
        assert (await client.request(method, f"/api/file/{file_id}{suffix}")).status == 404
    with pytest.raises(NotFound, match="attachments: "):
        await check_attachments(services.files, ANA, [file_id])
    assert await read_attachments(services.files, ANA, [file_id]) == [Attachment()]


async def test_the_routes_are_described(client: Client) -> None:
    paths = (await client.request("GET", "/openapi.json")).json()["paths"]
    assert set(paths["/api/file"]) == {"get", "post"}
    assert set(paths["/api/file/{file_id}"]) == {"get", "delete"}
    assert set(paths["/api/file/{file_id}/download"]) == {"get"}
    assert {"200", "206", "304", "404", "412", "416"} <= set(paths["/api/file/{file_id}/download"]["get"]["responses"])
    assert "multipart/form-data" in paths["/api/file"]["post"]["requestBody"]["content"]
