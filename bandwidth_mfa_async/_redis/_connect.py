"""Creates and closes redis-py clients."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def close_quietly(close: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Close a redis-py object, even if the close is cancelled.

    Args:
        close: closes the object. Its errors are ignored.
        seconds: how long to wait for it.
    """

    async def attempt() -> None:
        """Close it once, and ignore errors and a timeout."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                await close()

    try:
        await attempt()
    except asyncio.CancelledError:
        # redis-py closes connections in tasks; a task that was cancelled before it started has closed nothing.
        await attempt()
        raise


def make_client(url: str, *, cluster: bool = False) -> Any:
    """Return a redis-py client without timeouts and retries; it opens its connections at first use."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Without its name and version a connection saves two round trips, and redis-py reads no package metadata.
    no_driver_info: dict[str, Any] = {"lib_name": None, "lib_version": None}
    if "redis.driver_info" in sys.modules:  # newer versions of redis-py
        no_driver_info = {"driver_info": None}
    # RESP 3 needs Redis 6. With a socket timeout redis-py writes inside `asyncio.wait_for`, which loses cancellations
    # before Python 3.12; the callers set a timeout for each operation.
    options = no_driver_info | {"protocol": 2, "socket_timeout": None}
    if cluster:
        return RedisCluster.from_url(url, **options)
    kind: Any = Redis  # redis-py does not annotate its keywords
    # The default retries of redis-py would outlast the timeouts of the callers.
    return kind.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def is_valid_redis_url(url: str) -> bool:
    """Return whether every part of a URL is valid: redis-py reads a path that is not a number as database 0."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        return False
    if parts.scheme == "unix":
        return bool(parts.path)
    database = parts.path.strip("/")
    return not database or (database.isascii() and database.isdigit())
