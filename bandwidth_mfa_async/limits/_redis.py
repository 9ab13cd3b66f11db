"""`RedisLimits`: one limit for every process and machine that uses an account, kept in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.errors import ConfigurationError

from ._lease import LinkLostError
from ._shared import SharedLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bandwidth_mfa_async._clock import Clock
    from bandwidth_mfa_async.telemetry import Event

OPERATION_TIMEOUT: Final = 0.25
"""Seconds a Redis call may take, connecting included; redis-py's own default is for ever."""

_MOST_KEY: Final = 200
_MOST_SECONDS: Final = 1e9


# Read on import and not in the event loop.
_SCRIPT: Final = resources.files("bandwidth_mfa_async.limits").joinpath("adaptive.lua").read_text("utf-8")


class RedisLimits:
    """The account's limits, shared through Redis (6 or later): ``Limits(shared=RedisLimits(url, key=account_id))``.

    What one process learns from a 429 all of them keep to, sign-ins go before bulk items of every process, and each
    process gets its turn. Time is Redis's own, so clocks need not agree.

    Redis never makes a call fail: when it cannot be reached, hangs, refuses the password or cannot run the script,
    each process goes on at the share it had lately, and tries again every second or so. The log says so once.

    The same object may serve several clients; every client opens a connection per channel at its first send and
    closes it with itself.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database as redis-py reads
            them.
        key: what the limit belongs to: the account id. Two accounts never share one.
        fallback_rate: this process's own rate for a start without Redis, when no share is known yet: a `Rate` or a
            text like ``"5/s"``. None: the client's configured rate, or unlimited until the first 429.
        prefix: what every Redis key begins with.
        expires: seconds after which an unused limit is forgotten.

    Raises:
        ConfigurationError: the URL, the key or another value is wrong, or redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str,
        fallback_rate: Rate | str | None = None,
        prefix: str = "bandwidth-mfa",
        expires: float = 86_400.0,
    ) -> None:
        self._url = _checked_redis_url(url)
        self._key = _checked_name("key", key)
        self._prefix = _checked_name("prefix", prefix)
        if isinstance(fallback_rate, str):
            fallback_rate = Rate.parse(fallback_rate)
        if fallback_rate is not None and not isinstance(fallback_rate, Rate):
            raise ConfigurationError("fallback_rate: must be a Rate, a text like '5/s', or None")
        self._fallback = None if fallback_rate is None else fallback_rate.per_second
        self._expires = _checked_seconds("expires", expires)
        self._script = _SCRIPT
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"RedisLimits(key={self._key!r}, prefix={self._prefix!r})"  # the URL may hold a password

    def redis_key(self, channel: str) -> str:
        """Return the key of a channel's state; the braces keep an account's keys on one node of a cluster."""
        return f"{self._prefix}:{{{self._key}}}:{channel}"

    def limiter(  # noqa: PLR0913 - those of ChannelLimiter
        self,
        channel: str,
        *,
        rate: Rate | None,
        adaptive: bool,
        clock: Clock,
        emit: Callable[[Event], None] | None = None,
        max_pause: float = 60.0,
    ) -> SharedLimiter:
        """Return one channel's limiter for one client, which closes it; nothing is opened before its first use.

        Args:
            channel: ``"messaging"`` or ``"voice"``.
            rate: the account's known limit, for all processes together; None when unknown.
            adaptive: learn from 429 answers.
            clock: where time comes from.
            emit: receives events; None to build none.
            max_pause: the longest a Retry-After may close the gate, in seconds.
        """
        return SharedLimiter(
            channel,
            link=_RedisLink(self._url, self.redis_key(channel), self._script, self._sha),
            rate=rate,
            adaptive=adaptive,
            clock=clock,
            emit=emit,
            max_pause=max_pause,
            fallback_rate=self._fallback,
            expires=self._expires,
        )


class _RedisLink:
    """One connection, opened when it is first needed and again after every failure."""

    def __init__(self, url: str, key: str, script: str, sha: str) -> None:
        self._url = url
        self._key = key
        self._script = script
        self._sha = sha
        self._client: Any = None

    async def exchange(self, arguments: Sequence[str]) -> Any:
        from redis.exceptions import ConnectionError as RedisConnectionError

        try:
            async with asyncio.timeout(OPERATION_TIMEOUT):
                was_open = self._client is not None
                try:
                    return await self._run(arguments)
                except RedisConnectionError:
                    # A connection that was idle may have been closed by the other side, which is no outage.
                    if not was_open:
                        raise
                await self._drop()
                return await self._run(arguments)
        except asyncio.CancelledError:
            await self._drop()  # its answer is still on the way, and would be taken for the next one's
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, sends go on
            reason = type(error).__name__
        await self._drop()
        raise LinkLostError(reason)

    async def _run(self, arguments: Sequence[str]) -> Any:
        from redis.exceptions import NoScriptError

        if self._client is None:
            self._client = _make_client(self._url)
        try:
            return await self._client.evalsha(self._sha, 1, self._key, *arguments)
        except NoScriptError:  # a new Redis, or one that was restarted
            return await self._client.eval(self._script, 1, self._key, *arguments)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # What hangs is not waited for, and what is broken already may say so.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(OPERATION_TIMEOUT):
                    await client.aclose(close_connection_pool=True)

    async def aclose(self) -> None:
        await self._drop()


def _make_client(url: str) -> Any:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Not telling Redis which client this is saves two round trips, and a search for redis-py's version on the disk.
    untold: dict[str, Any] = {"lib_name": None, "lib_version": None}
    if "redis.driver_info" in sys.modules:  # where newer versions keep these
        untold = {"driver_info": None}
    # Its own retries would outlast the timeout, and RESP 3 needs Redis 6.
    return Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), **untold)


def _checked_redis_url(url: object) -> str:
    if not isinstance(url, str):
        msg = f"url: must be str, not {type(url).__name__}"
        raise ConfigurationError(msg)
    try:
        import redis.asyncio  # noqa: F401 - whether it is there
    except ImportError:
        raise ConfigurationError("RedisLimits needs redis-py: pip install 'bandwidth-mfa-async[redis]'") from None
    try:
        # Options that redis-py does not know come out only when it makes a connection object; this opens none.
        _make_client(url).connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may quote the password
        raise ConfigurationError("url: must look like redis://[user:password@]host[:port][/database]") from None
    return url


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_KEY:
        msg = f"{name}: must be a text of 1 to {_MOST_KEY} characters, like '9900000'"
        raise ConfigurationError(msg)
    if not value.isprintable() or any(char in "{} " for char in value):
        msg = f"{name}: must not hold braces, blanks or control characters"
        raise ConfigurationError(msg)
    return value


def _checked_seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= _MOST_SECONDS:
        msg = f"{name}: must be a number of seconds of at least 1"
        raise ConfigurationError(msg)
    return float(value)
