"""Makes redis-py clients from URLs and closes them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def close_quietly(close: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Close what redis-py has open, also where that is cancelled; it is given up after so many seconds."""

    async def attempt() -> None:
        """What hangs is not waited for, and what is broken already may say so."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                await close()

    try:
        await attempt()
    except asyncio.CancelledError:
        # redis-py closes its connections in tasks, and those that had not begun have closed nothing.
        await attempt()
        raise


def make_client(url: str, *, cluster: bool = False) -> Any:
    """Return a client of redis-py that leaves time limits and max_wait to us and opens nothing yet."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Not telling Redis which client this is saves two round trips, and a search for redis-py's version on the disk.
    no_driver_info: dict[str, Any] = {"lib_name": None, "lib_version": None}
    if "redis.driver_info" in sys.modules:  # where newer versions keep these
        no_driver_info = {"driver_info": None}
    # RESP 3 needs Redis 6. With a time limit of its own redis-py writes inside `asyncio.wait_for`, which loses
    # cancellations before Python 3.12; each operation here has one anyway.
    options = no_driver_info | {"protocol": 2, "socket_timeout": None}
    if cluster:
        return RedisCluster.from_url(url, **options)
    kind: Any = Redis  # redis-py gives its keywords no types
    # Its own retries would outlast that time limit.
    return kind.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def is_valid_redis_url(url: str) -> bool:
    """Tell whether all of a URL means something: redis-py takes database 0 for a path that is no number."""
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
