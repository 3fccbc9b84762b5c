"""The connection to Cosmos DB: its SDK, with deadlines, retries and refusals as the rest of the adapter wants them.

The SDK tries nothing again by itself here, as far as it lets us: it would neither stop at a deadline nor say whether an attempt
that failed may have been committed. What can pass (408, 429, 449, 5xx, a connection lost) is tried again with jitter until the
deadline of the port's call, then it is a retryable error with a sentence. What is an answer (404, 409, 412) is
:class:`~serve_app.storage.cosmos.operations.Refused`. Nothing of the SDK leaves this module.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos._retry_options import RetryOptions
from azure.cosmos.aio import ContainerProxy, CosmosClient
from azure.cosmos.documents import ConnectionPolicy
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from serve_app.errors import ConfigError
from serve_app.storage.cosmos import charges
from serve_app.storage.cosmos.charges import OnCharge
from serve_app.storage.cosmos.documents import Json
from serve_app.storage.cosmos.failures import (
    COMMITTED_PERHAPS,
    PASSING,
    away,
    container_is_missing,
    failure_of,
    status_of,
)
from serve_app.storage.cosmos.layout import Container, Partition
from serve_app.storage.cosmos.operations import Operation, PlaceLost, Refused

T = TypeVar("T")
MAX_ATTEMPTS = 12
"""Most attempts of one request, whatever the deadline."""
_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 2.0
_LARGEST_PAGE = 1_000
_deadline: ContextVar[float | None] = ContextVar("cosmos_deadline", default=None)


class Connection:
    """One database. Made by :meth:`open`, which does not call it yet; let go by :meth:`close`."""

    def __init__(
        self,
        client: CosmosClient,
        database: str,
        *,
        request_timeout_s: float,
        retry_s: float,
        observe: Callable[[str | None, float], None],
        on_charge: OnCharge | None = None,
    ) -> None:
        self._client = client
        self._database = database
        self._containers: dict[str, ContainerProxy] = {}
        self._request_timeout_s = request_timeout_s
        self._retry_s = retry_s
        self._observe = observe
        self._on_charge = on_charge
        self._entered = asyncio.Lock()
        self._is_entered = False

    @classmethod
    def open(
        cls,
        endpoint: str,
        credential: str | AsyncTokenCredential,
        database: str,
        *,
        request_timeout_s: float,
        retry_s: float,
        observe: Callable[[str | None, float], None],
        on_charge: OnCharge | None = None,
    ) -> Connection:
        """Raises ConfigError for an endpoint or key that cannot be one."""
        try:
            client = new_client(endpoint, credential, request_timeout_s=request_timeout_s)
        except (ValueError, TypeError, AzureError) as error:
            raise ConfigError(f"Cosmos DB cannot be used at {endpoint} with the key given: {error}.") from error
        return cls(
            client,
            database,
            request_timeout_s=request_timeout_s,
            retry_s=retry_s,
            observe=observe,
            on_charge=on_charge,
        )

    @asynccontextmanager
    async def deadline(self, times: int = 1) -> AsyncIterator[None]:
        """All calls inside end within ``times`` the time that requests are tried again, and that of one request more."""
        loop = asyncio.get_running_loop()
        retry_s = self._retry_s * times
        token = _deadline.set(loop.time() + retry_s)
        try:
            async with asyncio.timeout(retry_s + self._request_timeout_s) as timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise away() from None
        finally:
            _deadline.reset(token)

    # Reading

    async def read(self, container: Container, partition: Partition, document_id: str) -> Json | None:
        """A document, or None."""

        async def call() -> Json | None:
            asked = time.monotonic()
            proxy = await self._container(container)
            try:
                found = await proxy.read_item(document_id, list(partition))
            except CosmosHttpResponseError as error:
                if error.status_code != 404 or error.sub_status:
                    raise
                self._answered(f"{container.name}.read", error.headers, asked)
                return None
            self._answered(f"{container.name}.read", found.get_response_headers(), asked)
            return dict(found)

        return await self._patiently(f"{container.name}.read", call)

    async def query(
        self,
        container: Container,
        partition: Partition,
        where: str = "",
        parameters: Mapping[str, Any] | None = None,
        *,
        order: str = "",
        select: str = "*",
        limit: int,
        max_bytes: int | None = None,
    ) -> list[Json]:
        """Up to ``limit`` documents of one partition. ``where`` comes after the conditions on the key.

        With ``max_bytes`` no more come once their bodies exceed it; one always does.
        """
        first, second = container.fields
        sql = f"SELECT {select} FROM c WHERE c.{first} = @key1 AND c.{second} = @key2"  # noqa: S608 - fields and parameters
        sql += f" AND {where}" if where else ""
        sql += f" ORDER BY c.{order}" if order else ""
        values = {"@key1": partition[0], "@key2": partition[1], **(parameters or {})}

        async def call() -> list[Json]:
            asked = time.monotonic()

            def answered(headers: Mapping[str, str], _: object = None) -> None:
                nonlocal asked
                self._answered(f"{container.name}.query", headers, asked)
                asked = time.monotonic()

            pages = (await self._container(container)).query_items(
                query=sql,
                parameters=[{"name": name, "value": value} for name, value in values.items()],
                partition_key=list(partition),
                max_item_count=min(limit, _LARGEST_PAGE),
                response_hook=answered,
            )
            found: list[Json] = []
            size = 0
            async for item in pages:
                found.append(dict(item))
                size += _size(item)
                if len(found) >= limit or (max_bytes is not None and size > max_bytes):
                    break
            return found

        return await self._patiently(f"{container.name}.query", call)

    async def feed_ranges(self, container: Container) -> list[Json]:
        """The pieces that the change feed of a container is read in, one per physical partition as it is now."""

        async def call() -> list[Json]:
            ranges = (await self._container(container)).read_feed_ranges(force_refresh=True)
            return [dict(piece) async for piece in ranges]

        return await self._patiently(f"{container.name}.ranges", call)

    async def changes(
        self, container: Container, feed_range: Json, continuation: str | None, *, limit: int
    ) -> tuple[list[Json], str | None]:
        """A page of what has changed in a piece of a container, and from where to go on; None is from the beginning.

        No items: nothing has changed since. Raises PlaceLost for a continuation that means nothing any more.
        """

        async def call() -> tuple[list[Json], str | None]:
            asked = time.monotonic()
            last: Mapping[str, str] = {}

            def answered(headers: Mapping[str, str], _: object = None) -> None:
                nonlocal last
                last = headers
                self._answered(f"{container.name}.changes", headers, asked)

            start: dict[str, Any] = {"continuation": continuation}
            if continuation is None:
                start = {"start_time": "Beginning", "feed_range": feed_range}
            proxy = await self._container(container)
            pages = proxy.query_items_change_feed(max_item_count=limit, response_hook=answered, **start)
            pager: Any = pages.by_page()
            try:
                page = await anext(pager)
            except ValueError as error:
                raise PlaceLost from error
            except StopAsyncIteration:
                # The pager does not tell where it stands at the end, its last answer does.
                return [], last.get("etag") or continuation
            return [dict(item) async for item in page], pager.continuation_token or continuation

        return await self._patiently(f"{container.name}.changes", call)

    # Writing

    async def write(self, container: Container, partition: Partition, operations: Sequence[Operation]) -> list[str]:
        """All of the operations or none, in their order; returns the new etags. Raises Refused."""

        async def call() -> list[str]:
            asked = time.monotonic()
            proxy = await self._container(container)
            results = await proxy.execute_item_batch([operation.sent() for operation in operations], list(partition))
            self._answered(f"{container.name}.write", results.get_response_headers(), asked)
            return [str(result.get("eTag", "")) for result in results]

        return await self._patiently(f"{container.name}.write", call)

    async def close(self) -> None:
        if self._is_entered:
            await self._client.__aexit__()
        else:
            await self._client.close()

    # Patience

    async def _patiently(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        until = _deadline.get() or loop.time() + self._retry_s
        perhaps_written = False
        for attempt in itertools.count(1):
            wait_s = random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt))  # noqa: S311 - jitter
            asked = time.monotonic()
            try:
                async with asyncio.timeout(self._request_timeout_s):
                    return await self._ask(call)
            except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
                status = status_of(error)
                self._answered(operation, error.headers or {}, asked)
                if status in (404, 409, 412) and not container_is_missing(error):
                    index = getattr(error, "error_index", 0)
                    raise Refused(status, index, perhaps_written=perhaps_written) from None
                failure = failure_of(error, status, self._database)
                if status not in PASSING:
                    raise failure from error
                perhaps_written = perhaps_written or status in COMMITTED_PERHAPS
                if (told_ms := (error.headers or {}).get("x-ms-retry-after-ms")) is not None:
                    wait_s += float(told_ms) / 1000
                cause: Exception = error
            except ClientAuthenticationError as error:
                raise failure_of(error, 401, self._database) from error
            except (AzureError, TimeoutError, OSError) as error:
                perhaps_written = True
                failure = away()
                cause = error
            if attempt >= MAX_ATTEMPTS or loop.time() + wait_s >= until:
                raise failure from cause
            await asyncio.sleep(wait_s)
        raise AssertionError

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._enter()
        try:
            return await call()
        except TypeError as error:
            # The SDK trips over an answer when what fails is its own question for the parts of a container.
            if isinstance(error.__context__, CosmosHttpResponseError):
                raise error.__context__ from None
            raise

    async def _enter(self) -> None:
        """The SDK asks the account about itself once, before anything else."""
        if self._is_entered:
            return
        async with self._entered:
            if not self._is_entered:
                await self._client.__aenter__()
                self._is_entered = True

    def _answered(self, operation: str, headers: Mapping[str, str], asked: float) -> None:
        now = time.monotonic()
        charge = float(headers.get("x-ms-request-charge") or 0.0)
        self._observe(headers.get("Date") or headers.get("date"), asked)
        charges.count(charge)
        if self._on_charge is not None:
            self._on_charge(operation, charge, (now - asked) * 1000)

    async def _container(self, container: Container) -> ContainerProxy:
        """Read once before its first use, which the SDK would do as well: afterwards a 404 is about a document."""
        found = self._containers.get(container.name)
        if found is None:
            found = self._client.get_database_client(self._database).get_container_client(container.name)
            try:
                await found.read()
            except CosmosHttpResponseError as error:
                if error.status_code == 404:
                    raise ConfigError(
                        f"Cosmos DB has no container {container.name} in a database {self._database}; "
                        "run `parley store init`."
                    ) from error
                raise
            self._containers[container.name] = found
        return found


def _size(item: Mapping[str, Any]) -> int:
    """About how large the body is that a document holds itself."""
    body = item.get("body")
    if isinstance(body, str):
        return len(body)
    records = item.get("records")
    return sum(len(record[-1]) for record in records) if isinstance(records, list) else 0


def new_client(
    endpoint: str, credential: str | AsyncTokenCredential, *, request_timeout_s: float, user_agent: str = "parley"
) -> CosmosClient:
    """The SDK's client with what it would do by itself turned off. Raises ValueError or TypeError."""
    policy = ConnectionPolicy()
    # As an option a 0 would be taken for unset.
    policy.RetryOptions = RetryOptions(max_retry_attempt_count=0, max_wait_time_in_seconds=0)
    return CosmosClient(
        endpoint,
        credential,
        connection_policy=policy,
        connection_timeout=request_timeout_s,
        read_timeout=request_timeout_s,
        retry_connect=0,
        retry_read=0,
        retry_status=0,
        # An emulator has one endpoint, and names it as it is called inside its container.
        enable_endpoint_discovery=endpoint.startswith("https://") and "localhost" not in endpoint,
        # Else each character beyond ASCII takes six bytes, and what fits a batch could not be told beforehand.
        enable_compact_utf8_item_writes=True,
        user_agent_suffix=user_agent,
    )
