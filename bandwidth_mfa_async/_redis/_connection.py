"""A Redis connection that waits and retries during an outage, and raises errors that say what to do."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .._clock import sleep_until
from ..errors import ConfigurationError, LedgerError
from ._connect import close_quietly, is_valid_redis_url, make_client
from ._errors import classify_redis_error, error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._clock import Clock
    from ._script import Script

_LOG = logging.getLogger("bandwidth_mfa_async.worker")

_URL_FORM: Final = "ledger: must look like redis://[user:password@]host[:port][/database]"
_MIN_WAIT: Final = 0.05
_MAX_WAIT: Final = 1.0
_LOG_OUTAGE_AFTER: Final = 1.0
"""Seconds of an outage before it is logged."""

# Signs in the lower-case text of an error, and what to report: the text itself may contain keys, names and addresses.
_FATAL_ERRORS: Final = (
    (("wrongpass", "invalid password", "invalid username-password", "noauth", "authentication"), "wrong password"),
    (("noperm", "no permission"), "this user may not run EVALSHA, EVAL and the commands of our scripts there"),
    (("unknown command", "non deterministic"), "this Redis is too old for the scripts; 5 or later is needed"),
    (("wrongtype",), "a key of its prefix holds something else; choose another prefix"),
    (("invalid db index", "out of range"), "there is no such database"),
    (("crossslot",), "its keys are on several nodes; pass cluster=True"),
    (("moved",), "this is a node of a cluster; pass cluster=True"),
)
# Errors that end by themselves or once the operator of the Redis acts, and what the operator can do.
_OUT_OF_MEMORY: Final = ("oom ", "outofmemory")  # redis-py removes the prefix "OOM" and raises OutOfMemoryError
_TRANSIENT_SIGNS: Final = (
    *_OUT_OF_MEMORY,
    "loading",
    "readonly",
    "misconf",
    "masterdown",
    "clusterdown",
    "tryagain",
    "busy",
)
_OUTAGE_CAUSES: Final = (
    (_OUT_OF_MEMORY, "cannot be written: its Redis is out of memory; raise maxmemory"),
    (("misconf",), "cannot be written: its Redis cannot save; free space on its disk"),
    (("readonly",), "cannot be written: its Redis is a read-only replica; use the URL of the primary"),
    (("loading",), "cannot be reached yet: its Redis is loading its data"),
)


class Connection:
    """Runs scripts and commands for the ledger, and retries them while Redis cannot be reached.

    A script whose reply is lost runs twice; every script tolerates that.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        cluster: whether the URL is that of a Redis Cluster.
        timeout: seconds that one operation may take.
        clock: the time source.
    """

    def __init__(self, url: str, *, cluster: bool, timeout: float, clock: Clock) -> None:
        self._url = url
        self._cluster = cluster
        self._timeout = timeout
        self._clock = clock
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._closing: asyncio.Future[None] | None = None
        self._waiters = 0  # operations in an outage that is logged; it is logged once for all of them

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, max_wait: float = 1e9
    ) -> Any:
        """Run a script.

        Args:
            script: the script.
            keys: its keys.
            arguments: its arguments.
            max_wait: seconds to retry while Redis cannot be reached.

        Raises:
            LedgerError: Redis refuses the operation, could not be reached for `max_wait`, or the ledger was closed.
        """
        return await self.call(lambda client: script.run(client, keys, arguments), max_wait=max_wait)

    async def command(self, name: str, *arguments: Any) -> Any:
        """Run a Redis command; see `script`."""
        return await self.call(lambda client: getattr(client, name)(*arguments))

    async def call(self, operation: Callable[[Any], Awaitable[Any]], *, max_wait: float = 1e9) -> Any:
        """Run an operation with a redis-py client, and retry it during an outage; see `script`."""
        wait = _MIN_WAIT
        began = self._clock.monotonic()
        is_logged = False
        try:
            while True:
                if self._closed:
                    raise LedgerError("the ledger was closed before Redis answered")
                try:
                    async with asyncio.timeout(self._timeout):
                        answer = await operation(self._open())
                except Exception as error:  # noqa: BLE001 - redis-py raises many types
                    if not is_transient(error):
                        refusal = LedgerError(f"the ledger cannot be used: {_describe_error(error)}")
                        raise refusal from None
                    outage = _describe_outage(error)
                else:
                    if is_logged and self._waiters == 1:
                        _LOG.warning("the ledger can be used again")
                    return answer
                now = self._clock.monotonic()
                if now + wait - began > max_wait:
                    raise LedgerError(f"the ledger {outage}")
                if now - began >= _LOG_OUTAGE_AFTER and not is_logged:
                    is_logged = True
                    self._waiters += 1
                    if self._waiters == 1:
                        _LOG.warning("the ledger %s; the operation is retried until it succeeds", outage)
                await self._pause(now + wait)
                wait = min(2 * wait, _MAX_WAIT)
        finally:
            self._waiters -= is_logged

    async def _pause(self, until: float) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        timer = asyncio.ensure_future(sleep_until(self._clock, until))
        try:
            await asyncio.wait((timer, self._closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def _open(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections of another loop, such as that of an earlier asyncio.run, ended with that loop.
            self._loop = loop
            self._client = make_client(self._url, cluster=self._cluster)
        return self._client

    def open(self) -> None:
        """Allow operations, also after a close. The connection itself opens at first use."""
        self._closed = False
        self._closing = None

    def stop_waiting(self) -> None:
        """End all waits for Redis with an error: the ledger is closed."""
        self._closed = True
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)

    async def aclose(self) -> None:
        """Close; operations that wait for Redis raise a `LedgerError`."""
        self.stop_waiting()
        client, self._client = self._client, None
        if client is not None:
            await close_quietly(client.aclose, self._timeout)


def is_transient(error: Exception) -> bool:
    """Return whether a later retry may succeed: Redis is unreachable, starting, full or failing over."""
    from redis.exceptions import AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    if isinstance(error, AuthenticationError):
        return False
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)):
        return classify_redis_error(error, _FATAL_ERRORS) is None
    text = error_text(error)
    return isinstance(error, RedisError) and any(sign in text for sign in _TRANSIENT_SIGNS)


def _describe_error(error: Exception) -> str:
    return classify_redis_error(error, _FATAL_ERRORS) or f"Redis raised {type(error).__name__}"


def _describe_outage(error: Exception) -> str:
    return classify_redis_error(error, _OUTAGE_CAUSES) or "cannot be reached: start its Redis, or correct the URL"


def checked_url(url: object, *, cluster: bool) -> str:
    """Return a URL that redis-py can parse.

    Raises:
        ConfigurationError: redis-py cannot parse the URL, or is not installed.
    """
    try:
        import_module("redis")
    except ImportError:
        raise ConfigurationError("the ledger needs redis-py: pip install 'bandwidth-mfa-async[worker]'") from None
    if not isinstance(url, str):
        raise ConfigurationError(f"ledger: must be a URL like redis://localhost:6379/0, not {type(url).__name__}")
    if not is_valid_redis_url(url):
        raise ConfigurationError(_URL_FORM)
    try:
        client = make_client(url, cluster=cluster)
        if not cluster:
            # redis-py checks the options of the URL only when it makes a connection object. This opens no connection.
            client.connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may contain the password
        raise ConfigurationError(_URL_FORM) from None
    return url
