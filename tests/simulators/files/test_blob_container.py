"""Blob Storage failing: what passes is tried again within a budget, what does not is said in a sentence with its cure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import UserDelegationKey
from pydantic import SecretStr

from serve_app.blob.account import BlobAccount, open_account
from serve_app.blob.container import BlobContainer
from serve_app.blob.failures import failure_of
from serve_app.credentials import Secrets
from serve_app.domain.identity import Principal
from serve_app.errors import ConfigError, Conflict, NotFound, Overloaded, ParleyError, TooLarge, UpstreamFailed
from serve_app.files.blob import BlobFiles
from serve_app.files.connect import open_files
from serve_app.files.port import PIECE_BYTES
from serve_app.settings import AzureSettings, FileSettings, Settings
from serve_app.wire.chat_request import ChatRequest, UiMessage
from tests.simulators.files.azurite import Azurite, new_container
from tests.simulators.files.flaky import FlakyBlob, How

ANA = Principal(tenant_id="acme", user_id="ana")
LONG = bytes(range(256)) * (PIECE_BYTES // 256 * 2) + b"end"

Opened = Callable[..., BlobContainer]


@pytest.fixture
async def opened() -> AsyncGenerator[Opened]:
    """Opens containers, closed at the end."""
    all_of_them: list[BlobContainer] = []

    def open_one(settings: AzureSettings, key: SecretStr) -> BlobContainer:
        all_of_them.append(BlobContainer.open(settings, key, settings.blob_container))
        return all_of_them[-1]

    yield open_one
    for container in all_of_them:
        await container.close()


@pytest.fixture
async def container(flaky: FlakyBlob, opened: Opened, azurite: Azurite) -> BlobContainer:
    made = opened(flaky.settings(), azurite.secret)
    assert await made.create()
    assert not await made.create()
    return made


async def chunks(data: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), 300_000):
        yield data[start : start + 300_000]


@pytest.mark.parametrize("how", [408, 429, 500, 503, "drop before", "drop after"])
async def test_every_request_survives_what_passes(container: BlobContainer, flaky: FlakyBlob, how: How) -> None:
    files = BlobFiles(container, FileSettings())
    for method in ("GET", "PUT", "PUT", "PUT"):
        flaky.fail(method, how=how)
    made = await files.put(ANA, chunks(LONG), name="long.bin")
    for method in ("HEAD", "GET", "GET"):
        flaky.fail(method, how=how)
    assert await files.stat(made.key) == made
    assert b"".join([piece async for piece in await files.read(made)]) == LONG
    flaky.fail("DELETE", how=how)
    await files.delete(made.key)
    assert (await files.usage(ANA)).files == 0
    with pytest.raises(NotFound):
        await files.delete(made.key)


async def test_a_small_file_costs_one_write(container: BlobContainer, flaky: FlakyBlob) -> None:
    files = BlobFiles(container, FileSettings())
    flaky.requests.clear()
    await files.put(ANA, chunks(b"small"), name="a")
    assert flaky.requests.count("PUT") == 1
    assert flaky.requests.count("GET") == 2


async def test_the_budget_for_trying_again_ends(opened: Opened, flaky: FlakyBlob, azurite: Azurite) -> None:
    impatient = opened(flaky.settings(retry_s=2.0), azurite.secret)
    flaky.fail("*", times=1000, how=503)
    with pytest.raises(Overloaded, match="busy"):
        await impatient.stat("x")
    assert 2 <= len(flaky.requests) < 50


async def test_a_wait_that_azure_asks_for_beyond_the_budget_is_passed_on(
    opened: Opened, flaky: FlakyBlob, azurite: Azurite
) -> None:
    impatient = opened(flaky.settings(retry_s=5.0), azurite.secret)
    flaky.fail("*", times=1000, how=503, headers={"retry-after": "60"})
    with pytest.raises(Overloaded) as caught:
        await impatient.get("x", max_bytes=1)
    assert (caught.value.retry_after_s, len(flaky.requests)) == (60.0, 1)


async def test_silence_ends_with_the_deadline_of_a_request(opened: Opened, flaky: FlakyBlob, azurite: Azurite) -> None:
    quick = opened(flaky.settings(request_timeout_s=0.2, retry_s=0.5), azurite.secret)
    flaky.fail("*", times=1000, how="hang")
    with pytest.raises(Overloaded, match="cannot be reached"):
        await asyncio.wait_for(quick.stat("x"), 10)


async def test_nobody_listening_is_overloaded_and_check_says_the_same(opened: Opened, azurite: Azurite) -> None:
    settings = AzureSettings(blob_endpoint="http://127.0.0.1:1/devstoreaccount1", retry_s=0.3)
    away = opened(settings, azurite.secret)
    for ask in (away.check, lambda: away.stat("x"), lambda: away.put("x", b"1")):
        with pytest.raises(Overloaded, match="cannot be reached"):
            await ask()


async def test_a_wrong_key_and_a_missing_container_are_named_with_their_cure(opened: Opened, azurite: Azurite) -> None:
    wrong = opened(azurite.settings(), SecretStr("d3Jvbmc="))
    with pytest.raises(ConfigError, match="AZURE_STORAGE_KEY"):
        await wrong.check()
    with pytest.raises(UpstreamFailed, match="refuses access") as caught:
        await wrong.put("x", b"1")
    assert not caught.value.retryable
    missing = opened(azurite.settings("nowhere"), azurite.secret)
    with pytest.raises(ConfigError, match=r"no container 'nowhere'.*parley store init"):
        await missing.check()
    with pytest.raises(UpstreamFailed, match="no container"):
        await missing.stat("x")


@pytest.mark.parametrize(
    ("code", "headers", "says"),
    [
        ("AuthorizationPermissionMismatch", {}, "Storage Blob Data Contributor"),
        ("AuthorizationFailure", {}, "network rules"),
        ("KeyBasedAuthenticationNotPermitted", {}, "unset AZURE_STORAGE_KEY"),
        ("AuthenticationFailed", {}, "correct AZURE_STORAGE_KEY"),
        ("AuthenticationFailed", {"date": "Sat, 01 Jan 2000 00:00:00 GMT"}, "clock is off by"),
        (
            "AuthenticationFailed",
            {"date": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"},
            "correct AZURE_STORAGE_KEY",
        ),
    ],
)
async def test_a_refusal_is_explained(
    container: BlobContainer, flaky: FlakyBlob, code: str, headers: dict[str, str], says: str
) -> None:
    flaky.fail("*", how=403, headers={"x-ms-error-code": code, **headers})
    with pytest.raises(ConfigError, match=says):
        await container.check()


def test_no_token_from_entra_is_explained() -> None:
    failed = failure_of(ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token"), "c")
    assert isinstance(failed, UpstreamFailed)
    assert "sign in" in failed.message


@pytest.mark.parametrize(
    ("endpoint", "key", "says"),
    [
        (None, "aaaa", "PARLEY_AZURE__BLOB_ENDPOINT is needed"),
        ("nonsense", "aaaa", "PARLEY_AZURE__BLOB_ENDPOINT cannot be used"),
        ("https://files.example.com", "aaaa", "the account's own address"),
        ("https://acc.blob.core.windows.net", "not base64!", "AZURE_STORAGE_KEY"),
        ("http://127.0.0.1:1/acc", None, "must begin with https://"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(
    endpoint: str | None, key: str | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        open_account(AzureSettings(blob_endpoint=endpoint), SecretStr(key) if key else None)


async def test_without_a_key_entra_is_asked_and_both_are_closed() -> None:
    account = open_account(AzureSettings(blob_endpoint="https://acc.blob.core.windows.net"), None)
    assert (account.name, account.key, account.service.account_name) == ("acc", None, "acc")
    assert account.credential is not None
    await account.close()


async def test_blobs_are_written_whole_read_in_part_and_removed_by_prefix(container: BlobContainer) -> None:
    """What large bodies of a conversation need."""
    for name in ("bodies/a/1", "bodies/a/2", "bodies/ab", "other"):
        await container.put(name, name.encode(), metadata={"kind": "body"})
    await container.put("bodies/a/2", b"again")
    await container.put("empty", b"")
    assert await container.get("bodies/a/2", max_bytes=5) == b"again"
    assert await container.get("empty", max_bytes=5) == b""
    with pytest.raises(TooLarge):
        await container.get("bodies/a/2", max_bytes=4)
    with pytest.raises(NotFound):
        await container.get("bodies/a/3", max_bytes=5)
    assert [blob.name async for blob in container.blobs("bodies/", page=2)] == ["bodies/a/1", "bodies/a/2", "bodies/ab"]
    assert (await container.stat("other")).metadata == {"kind": "body"}
    now = datetime.now(UTC)
    assert await container.delete_prefix("bodies/a/", before=now - timedelta(hours=1)) == 0
    assert await container.delete_prefix("bodies/ab", before=now + timedelta(hours=1)) == 1
    await container.put("bodies/ab", b"again")
    assert await container.delete_prefix("bodies/a/") == 2
    assert await container.delete_prefix("bodies/a/") == 0
    assert [blob.name async for blob in container.blobs("")] == ["bodies/ab", "empty", "other"]


async def test_a_read_of_what_was_written_anew_meanwhile_is_refused(container: BlobContainer) -> None:
    first = await container.put("x", b"first")
    second = await container.put("x", b"second")
    with pytest.raises(Conflict):
        await container.read("x", 0, 5, etag=first.etag)
    assert await container.read("x", 0, 100, etag=second.etag) == b"second"


# Signed addresses


async def fetch(url: str) -> tuple[int, bytes, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status, await reply.read(), {name.lower(): value for name, value in reply.headers.items()}


async def test_a_signed_address_opens_its_one_file_for_a_while_and_as_harmlessly(
    opened: Opened, azurite: Azurite
) -> None:
    container = opened(azurite.settings(), azurite.secret)
    await container.create()
    files = BlobFiles(container, FileSettings(url="sas", sas_ttl_s=600))
    page = await files.put(ANA, chunks(b"<html><script>1</script>"), name='pa"ge ü.html', claimed_type="image/png")
    other = await files.put(ANA, chunks(b"other"), name="other")
    url = await files.url(page)
    status, content, headers = await fetch(url)
    assert (status, content) == (200, b"<html><script>1</script>")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment;")
    query = parse_qs(urlsplit(url).query)
    assert query["sp"] == ["r"]
    asked = UiMessage(role="user", parts=[{"type": "file", "url": url}])
    assert ChatRequest(messages=[asked]).file_ids() == (page.key.file_id,)
    expiry = datetime.fromisoformat(query["se"][0])
    assert timedelta(seconds=500) < expiry - datetime.now(UTC) <= timedelta(seconds=601)
    assert (await fetch(url.replace(page.key.file_id, other.key.file_id)))[0] == 403
    assert (await fetch(url.partition("?")[0]))[0] in {401, 403, 404}


async def test_with_entra_addresses_are_signed_by_a_delegation_key_used_for_many(azurite: Azurite) -> None:
    asked: list[tuple[datetime, datetime]] = []
    account = open_account(azurite.settings(), azurite.secret)

    async def delegation(begins: datetime, until: datetime) -> UserDelegationKey:
        asked.append((begins, until))
        key = UserDelegationKey()  # type: ignore[no-untyped-call]
        key.signed_oid = key.signed_tid = "00000000-0000-0000-0000-000000000000"
        key.signed_start, key.signed_expiry = begins.isoformat(), until.isoformat()
        key.signed_service, key.signed_version, key.value = "b", "2024-11-04", "a2V5"
        return key

    account.service.get_user_delegation_key = delegation  # type: ignore[method-assign, assignment]
    without_key = BlobAccount(name=account.name, key=None, service=account.service, credential=None)
    container = BlobContainer(without_key, "c", azurite.settings())
    urls = [
        await container.signed_url(name, 60, content_type="a/b", content_disposition="attachment")
        for name in ("x", "y")
    ]
    assert all("skoid=" in url and "sig=" in url for url in urls)
    assert len(asked) == 1
    assert asked[0][1] > datetime.now(UTC) + timedelta(minutes=30)
    await container.close()


# What the settings choose


async def test_the_settings_choose_the_store(azurite: Azurite, tmp_path: Any) -> None:
    azure = azurite.settings(new_container())
    settings = Settings(
        store="azure", azure=azure.model_copy(update={"cosmos_endpoint": "https://x"}), data_dir=tmp_path
    )
    in_blob = open_files(settings, Secrets(azure_storage_key=azurite.secret))
    with pytest.raises(ConfigError, match="parley store init"):
        await in_blob.check()
    await in_blob.close()
    on_disk = open_files(Settings(data_dir=tmp_path), Secrets())
    await on_disk.check()
    assert (tmp_path / "files").is_dir()


def test_every_failure_of_a_request_is_ours() -> None:
    for error in (TimeoutError(), OSError(), ClientAuthenticationError("x")):
        assert isinstance(failure_of(error, "c"), ParleyError)
