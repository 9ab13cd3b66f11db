"""Creates redis-py clients, replaces them when they are old, and closes them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._connection_age import connection_age
from .._validation import configuration_error
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._clock import Clock


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


class AgingClient:
    """A redis-py client that its owner replaces after about a minute, between two operations.

    The next client asks DNS again and reads the certificate authorities again, which redis-py does once per connection
    object. Otherwise connections in steady use would stay with the old address after a failover.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        clock: measures the age.
        cluster: whether the URL is that of a Redis Cluster.
        close_timeout: seconds that closing it may take.
    """

    def __init__(self, url: str, clock: Clock, *, cluster: bool = False, close_timeout: float) -> None:
        self._client = make_client(url, cluster=cluster)
        self._clock = clock
        self._retire_at = clock.monotonic() + connection_age()
        self._close_timeout = close_timeout
        self._operations = 0
        self._is_retired = False

    @property
    def is_old(self) -> bool:
        """Whether it is time to replace it."""
        return self._clock.monotonic() >= self._retire_at

    async def run(self, operation: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run an operation, in an empty context: the connections that it opens outlive the call that needs them."""
        self._operations += 1
        try:
            if not contextvars.copy_context():
                return await operation(self._client)

            async def run_operation() -> Any:
                """Run it."""
                return await operation(self._client)

            return await asyncio.get_running_loop().create_task(run_operation(), context=contextvars.Context())
        finally:
            self._operations -= 1
            if self._is_retired and not self._operations:
                await self.aclose()

    async def retire(self) -> None:
        """Close it once its last operation has ended."""
        self._is_retired = True
        if not self._operations:
            await self.aclose()

    async def aclose(self) -> None:
        """Close it at once."""
        await close_quietly(self._client.aclose, self._close_timeout)


def checked_redis_url(name: str, url: object, *, user: str, extra: str, cluster: bool = False) -> str:
    """Return a URL that redis-py can parse.

    Args:
        name: name of the argument, for the error.
        url: the value to check.
        user: what needs redis-py, for the error.
        extra: the extra of the package that installs redis-py for it.
        cluster: whether it is the URL of a Redis Cluster.

    Raises:
        ConfigurationError: redis-py cannot parse the URL, or is not installed.
    """
    try:
        import_module("redis")
    except ImportError:
        msg = f"{user} needs redis-py: pip install 'bandwidth-mfa-async[{extra}]'"
        raise ConfigurationError(msg) from None
    if not isinstance(url, str):
        raise configuration_error(name, f"must be a URL like redis://localhost:6379/0, not {type(url).__name__}")
    try:
        if not _is_valid(url):
            raise ValueError
        client = make_client(url, cluster=cluster)
        if not cluster:
            # redis-py checks the options of the URL only when it makes a connection object. This opens no connection.
            client.connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may contain the password
        raise configuration_error(name, "must look like redis://[user:password@]host[:port][/database]") from None
    return url


def _is_valid(url: str) -> bool:
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
