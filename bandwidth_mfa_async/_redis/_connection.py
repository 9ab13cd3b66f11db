"""The ledger's connection to Redis: scripts, max_wait while Redis is away, and errors that say what to do."""

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
_FIRST_WAIT: Final = 0.05
_MAX_WAIT: Final = 1.0
_LOG_OUTAGE_AFTER: Final = 1.0
"""Seconds that Redis may be away before the log says so."""

# What Redis says, in lower case, and what that means; its own words may quote keys, names and addresses.
_FATAL_ERRORS: Final = (
    (("wrongpass", "invalid password", "invalid username-password", "noauth", "authentication"), "wrong password"),
    (("noperm", "no permission"), "this user may not run EVALSHA, EVAL and the commands of our scripts there"),
    (("unknown command", "non deterministic"), "this Redis is too old for the scripts; 5 or later is needed"),
    (("wrongtype",), "a key of ours holds something else; choose another prefix"),
    (("invalid db index", "out of range"), "there is no such database"),
    (("crossslot",), "its keys lie on several nodes; pass cluster=True"),
    (("moved",), "this is a node of a cluster; pass cluster=True"),
)
# What passes without anybody's help, or with that of whoever runs the Redis; and what that help is.
_OUT_OF_MEMORY: Final = ("oom ", "outofmemory")  # redis-py cuts the first off, and has a class for it
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
    (("misconf",), "cannot be written: its Redis cannot save; make room on its disk"),
    (("readonly",), "cannot be written: its Redis is a read-only replica; let the URL lead to the primary"),
    (("loading",), "cannot be reached yet: its Redis loads its data"),
)


class Connection:
    """Runs the ledger's scripts; while Redis is away it waits and tries again.

    A script may so run twice, its first answer lost: all of them are written to bear that.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        cluster: whether it leads to a Redis Cluster.
        timeout: seconds one operation may take.
        clock: where time comes from.
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
        self._waiters = 0  # who have waited for so long that the log says so, once for all of them

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, max_wait: float = 1e9
    ) -> Any:
        """Run a script.

        Args:
            script: which.
            keys: what it may touch.
            arguments: what it is told.
            max_wait: seconds to go on trying while Redis is away.

        Raises:
            LedgerError: Redis refuses us, was away for too long, or the ledger was closed meanwhile.
        """
        return await self.call(lambda client: script.run(client, keys, arguments), max_wait=max_wait)

    async def command(self, name: str, *arguments: Any) -> Any:
        """Run one of Redis's own commands; see `script`."""
        return await self.call(lambda client: getattr(client, name)(*arguments))

    async def call(self, operation: Callable[[Any], Awaitable[Any]], *, max_wait: float = 1e9) -> Any:
        """Ask Redis something, as often as it takes; see `script`."""
        wait = _FIRST_WAIT
        began = self._clock.monotonic()
        waits = False
        try:
            while True:
                if self._closed:
                    raise LedgerError("the ledger was closed before Redis had answered")
                try:
                    async with asyncio.timeout(self._timeout):
                        answer = await operation(self._open())
                except Exception as error:  # noqa: BLE001 - what redis-py may raise is its own matter
                    if not is_transient(error):
                        refusal = LedgerError(f"the ledger cannot be used: {_describe_error(error)}")
                        raise refusal from None
                    outage = _describe_outage(error)
                else:
                    if waits and self._waiters == 1:
                        _LOG.warning("the ledger can be used again")
                    return answer
                now = self._clock.monotonic()
                if now + wait - began > max_wait:
                    raise LedgerError(f"the ledger {outage}")
                if now - began >= _LOG_OUTAGE_AFTER and not waits:
                    waits = True
                    self._waiters += 1
                    if self._waiters == 1:
                        _LOG.warning("the ledger %s; it is asked again until it answers", outage)
                await self._pause(now + wait)
                wait = min(2 * wait, _MAX_WAIT)
        finally:
            self._waiters -= waits

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
            # Connections of another loop, such as that of an earlier asyncio.run, ended with it.
            self._loop = loop
            self._client = make_client(self._url, cluster=self._cluster)
        return self._client

    def open(self) -> None:
        """Be usable, also after a close; nothing is opened before its first use."""
        self._closed = False
        self._closing = None

    def stop_waiting(self) -> None:
        """Wait for Redis no longer: who does is told that the ledger is closed."""
        self._closed = True
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)

    async def aclose(self) -> None:
        """Close; whoever waits for Redis is told so."""
        self.stop_waiting()
        client, self._client = self._client, None
        if client is not None:
            await close_quietly(client.aclose, self._timeout)


def is_transient(error: Exception) -> bool:
    """Return whether Redis may answer differently in a while: it is away, starting, full or fails over."""
    from redis.exceptions import AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    if isinstance(error, AuthenticationError):
        return False
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)):
        return classify_redis_error(error, _FATAL_ERRORS) is None
    words = error_text(error)
    return isinstance(error, RedisError) and any(sign in words for sign in _TRANSIENT_SIGNS)


def _describe_error(error: Exception) -> str:
    return classify_redis_error(error, _FATAL_ERRORS) or f"Redis raised {type(error).__name__}"


def _describe_outage(error: Exception) -> str:
    return classify_redis_error(error, _OUTAGE_CAUSES) or "cannot be reached: start its Redis, or mend the URL"


def checked_url(url: object, *, cluster: bool) -> str:
    """Return a URL that redis-py can read.

    Raises:
        ConfigurationError: it cannot, or is not installed.
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
            # Options that redis-py does not know come out only when it makes a connection object; this opens none.
            client.connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may quote the password
        raise ConfigurationError(_URL_FORM) from None
    return url
