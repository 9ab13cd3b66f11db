"""`RedisLimits`: one limit for every process and machine that uses an account, kept in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bandwidth_mfa_async._config import Rate, rate_for
from bandwidth_mfa_async.errors import ConfigurationError

from ._grant import StoreUnavailableError
from ._shared_limiter import SharedLimiter
from ._status import read_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from bandwidth_mfa_async._clock import Clock
    from bandwidth_mfa_async.telemetry import Event

    from ._status import SharedStatus

OPERATION_TIMEOUT: Final = 0.25
"""Seconds a Redis call may take, connecting included; redis-py's own default is for ever."""

# For a person who looks; no call waits for it.
_STATUS_TIMEOUT: Final = 2.0

_SLICES: Final = 10

_URL_FORM: Final = "url: must look like redis://[user:password@]host[:port][/database]"
_MOST_KEY: Final = 200
_MOST_SECONDS: Final = 1e9


# Read on import and not in the event loop.
_SCRIPT: Final = resources.files("bandwidth_mfa_async.limits.shared").joinpath("adaptive.lua").read_text("utf-8")


class RedisLimits:
    """The account's limits, shared through Redis (5 or later): ``Limits(shared=RedisLimits(url, key=account_id))``.

    What one process learns from a 429 all of them keep to, sign-ins go before bulk items of every process, and each
    process gets its turn. Time is Redis's own, so clocks need not agree.

    Redis never makes a call fail: when it cannot be reached, hangs, refuses the password or cannot run the script,
    each process goes on at the share it had lately, and tries again every second or so. The log says so once, and why.

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
        required: raise ConfigurationError from a call when Redis refuses us: its password, its permissions, its
            version. A Redis that is only away is never an error.

    Raises:
        ConfigurationError: the URL, the key or another value is wrong, or redis-py is not installed.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named
        self,
        url: str,
        *,
        key: str,
        fallback_rate: Rate | str | None = None,
        prefix: str = "bandwidth-mfa",
        expires: float = 86_400.0,
        required: bool = False,
    ) -> None:
        self._url = _checked_redis_url(url)
        self._key = _checked_name("key", key)
        self._prefix = _checked_name("prefix", prefix)
        fallback_rate = rate_for("fallback_rate", fallback_rate)
        if fallback_rate is not None and not isinstance(fallback_rate, Rate):
            raise ConfigurationError("fallback_rate: must be a Rate, a text like '5/s', or None")
        self._fallback = None if fallback_rate is None else fallback_rate.per_second
        self._expires = _checked_seconds("expires", expires)
        if not isinstance(required, bool):
            raise ConfigurationError("required: must be True or False")
        self._required = required
        self._script = _SCRIPT
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"RedisLimits(key={self._key!r}, prefix={self._prefix!r})"  # the URL may hold a password

    def redis_keys(self, channel: str) -> tuple[str, str]:
        """Return the keys of a channel's state and of who waits; the braces keep them on one node of a cluster."""
        state = f"{self._prefix}:{{{self._key}}}:{channel}"
        return state, f"{state}:waiting"

    async def status(self, channel: str = "messaging") -> SharedStatus:
        """Return what the processes share now, for people to look at.

        Args:
            channel: ``"messaging"`` or ``"voice"``.

        Raises:
            ConfigurationError: Redis cannot be reached or refuses us; the text says why and shows no address.
        """
        store = self._store(channel, _STATUS_TIMEOUT)
        try:
            return await store.status(channel)
        except StoreUnavailableError as error:
            msg = f"Redis cannot be used: {error}"
            raise ConfigurationError(msg) from None
        except (KeyError, ValueError):  # a hash that is not of our script's making
            raise ConfigurationError(
                "Redis cannot be used: a key of ours holds something else; choose another prefix"
            ) from None
        finally:
            await store.aclose()

    def _store(self, channel: str, timeout: float = OPERATION_TIMEOUT) -> _RedisStore:
        return _RedisStore(self._url, self.redis_keys(channel), self._script, self._sha, timeout)

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
            store=self._store(channel),
            rate=rate,
            adaptive=adaptive,
            clock=clock,
            emit=emit,
            max_pause=max_pause,
            fallback_rate=self._fallback,
            expires=self._expires,
            required=self._required,
        )


class _RedisStore:
    """One connection, opened when it is first needed and again after every failure."""

    def __init__(self, url: str, keys: tuple[str, str], script: str, sha: str, timeout: float) -> None:
        self._timeout = timeout
        self._url = url
        self._keys = keys
        self._script = script
        self._sha = sha
        self._client: Any = None

    async def exchange(self, arguments: Sequence[str]) -> Any:
        return await self._guarded(lambda client: self._run(client, arguments))

    async def status(self, channel: str) -> SharedStatus:
        seconds, micros = await self._guarded(lambda client: client.time())
        state = await self._guarded(lambda client: client.hgetall(self._keys[0]))
        waiting = await self._guarded(lambda client: client.hgetall(self._keys[1]))
        return read_status(channel, seconds + micros / 1e6, _texts(state), _texts(waiting))

    async def _guarded(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask, for no longer than the timeout; whatever is wrong with Redis becomes one error."""
        from redis.exceptions import ConnectionError as RedisConnectionError

        try:
            async with _patience(self._timeout):
                was_open = self._client is not None
                try:
                    return await ask(self._open())
                except RedisConnectionError:
                    # A connection that was idle may have been closed by the other side, which is no outage.
                    if not was_open:
                        raise
                await self._drop()
                return await ask(self._open())
        except asyncio.CancelledError:
            await self._drop()  # its answer is still on the way, and would be taken for the next one's
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, sends go on
            failure = _unavailable(error, self._timeout)
        await self._drop()
        raise failure

    def _open(self) -> Any:
        if self._client is None:
            self._client = make_client(self._url)
        return self._client

    async def _run(self, client: Any, arguments: Sequence[str]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return await client.evalsha(self._sha, len(self._keys), *self._keys, *arguments)
        except NoScriptError:  # a new Redis, or one that was restarted
            return await client.eval(self._script, len(self._keys), *self._keys, *arguments)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await closed(lambda: client.aclose(close_connection_pool=True), OPERATION_TIMEOUT)

    async def aclose(self) -> None:
        await self._drop()


async def closed(close: Callable[[], Awaitable[Any]], seconds: float) -> None:
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


@contextlib.asynccontextmanager
async def _patience(seconds: float) -> AsyncGenerator[None]:
    """Raise TimeoutError after so many seconds, of which those that this process itself was held up do not count.

    A busy process finds the answer in its socket when it runs again; blaming Redis would set it off on its own.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as limit:

        def tick(left: int) -> None:
            nonlocal timer
            if left:
                timer = loop.call_later(seconds / _SLICES, tick, left - 1)
            else:
                limit.reschedule(loop.time())

        tick(_SLICES)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


# What Redis says, in lower case, and what that means; its own words may quote keys, names and addresses.
_REFUSALS: Final = (
    (
        ("wrongpass", "invalid password", "invalid username-password", "noauth", "authentication"),
        "wrong user or password",
    ),
    (("noperm", "no permission", "no permissions"), "this user may not run EVALSHA, EVAL, TIME or hash commands there"),
    (
        ("unknown command", "non deterministic", "script_kill"),
        "this Redis is too old for the script; 5 or later is needed",
    ),
    (("wrongtype",), "a key of ours holds something else; choose another prefix"),
    (("readonly", "read only"), "this Redis is a read-only replica"),
    (("oom ", "outofmemory", "misconf"), "this Redis takes no writes: it is out of memory or cannot save"),
    (("invalid db index", "out of range"), "there is no such database"),
)


def words_of(error: Exception) -> str:
    """Return what redis-py raised, in lower case, to look for signs in; nothing of it may be shown."""
    return f"{type(error).__name__} {error}".lower()


def meaning_of(error: Exception, meanings: Sequence[tuple[tuple[str, ...], str]]) -> str | None:
    """Return the first meaning of which a sign is in an error; None when there is none."""
    words = words_of(error)
    return next((meaning for signs, meaning in meanings if any(sign in words for sign in signs)), None)


def _unavailable(error: Exception, timeout: float) -> StoreUnavailableError:
    from redis.exceptions import RedisError

    meaning = meaning_of(error, _REFUSALS) if isinstance(error, RedisError) else None
    if meaning is not None:
        return StoreUnavailableError(meaning, refused=True)
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(f"no answer within {timeout:g} s")
    return StoreUnavailableError(f"it cannot be reached: {type(error).__name__}")


def _texts(found: Any) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def make_client(url: str, *, cluster: bool = False) -> Any:
    """Return a client of redis-py that leaves time limits and patience to us and opens nothing yet."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Not telling Redis which client this is saves two round trips, and a search for redis-py's version on the disk.
    untold: dict[str, Any] = {"lib_name": None, "lib_version": None}
    if "redis.driver_info" in sys.modules:  # where newer versions keep these
        untold = {"driver_info": None}
    # RESP 3 needs Redis 6. With a time limit of its own redis-py writes inside `asyncio.wait_for`, which loses
    # cancellations before Python 3.12; each operation here has one anyway.
    options = untold | {"protocol": 2, "socket_timeout": None}
    if cluster:
        return RedisCluster.from_url(url, **options)
    kind: Any = Redis  # redis-py gives its keywords no types
    # Its own retries would outlast that time limit.
    return kind.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def _checked_redis_url(url: object) -> str:
    if not isinstance(url, str):
        msg = f"url: must be str, not {type(url).__name__}"
        raise ConfigurationError(msg)
    try:
        import_module("redis")
    except ImportError:
        raise ConfigurationError("RedisLimits needs redis-py: pip install 'bandwidth-mfa-async[redis]'") from None
    if not names_its_database(url):
        raise ConfigurationError(_URL_FORM)
    try:
        # Options that redis-py does not know come out only when it makes a connection object; this opens none.
        make_client(url).connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may quote the password
        raise ConfigurationError(_URL_FORM) from None
    return url


def names_its_database(url: str) -> bool:
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
