"""A client of Redis that fails soon: bounded in connections and in time, and never asking twice by itself."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def new_client(url: str, *, timeout_s: float, max_connections: int, decode_responses: bool = False) -> Redis:
    """Made without a connection: the first call makes it.

    ``timeout_s``: how long connecting, waiting for a connection, and one answer may each take. ``decode_responses``: text
    instead of bytes. Raises ValueError for a URL that is none.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=decode_responses,
    )
    return Redis.from_pool(pool)
