"""`RedisLimits`: one limit for every process and machine that uses an account, kept in Redis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..._config import Rate, parse_rate
from ..._redis._connect import is_valid_redis_url, make_client
from ..._redis._fail_fast import OPERATION_TIMEOUT, FailFastConnection, StoreUnavailableError
from ..._redis._script import Script
from ...errors import ConfigurationError
from ._shared_limiter import SharedLimiter
from ._status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..._clock import Clock
    from ...telemetry import Event
    from ._status import SharedStatus


# For a person who looks; no call waits for it.
_STATUS_TIMEOUT: Final = 2.0


_URL_FORM: Final = "url: must look like redis://[user:password@]host[:port][/database]"
_MAX_KEY: Final = 200
_MAX_SECONDS: Final = 1e9


# Read on import and not in the event loop.
assert __package__ is not None  # noqa: S101 - an imported module has one
_SCRIPT: Final = Script.load(__package__, "adaptive.lua")


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
        fallback_rate = parse_rate("fallback_rate", fallback_rate)
        if fallback_rate is not None and not isinstance(fallback_rate, Rate):
            raise ConfigurationError("fallback_rate: must be a Rate, a text like '5/s', or None")
        self._fallback = None if fallback_rate is None else fallback_rate.per_second
        self._expires = _checked_seconds("expires", expires)
        if not isinstance(required, bool):
            raise ConfigurationError("required: must be True or False")
        self._required = required
        self._script = _SCRIPT

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
        return _RedisStore(FailFastConnection(self._url, timeout), self.redis_keys(channel), self._script)

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
    """The state of one channel in Redis.

    Args:
        connection: closed with it.
        keys: of the channel's state and of the processes that wait.
        script: runs one exchange.
    """

    def __init__(self, connection: FailFastConnection, keys: tuple[str, str], script: Script) -> None:
        self._connection = connection
        self._keys = keys
        self._script = script

    async def exchange(self, arguments: Sequence[str]) -> Any:
        return await self._connection.call(lambda client: self._script.run(client, self._keys, arguments))

    async def status(self, channel: str) -> SharedStatus:
        ask = self._connection.call
        seconds, micros = await ask(lambda client: client.time())
        state = await ask(lambda client: client.hgetall(self._keys[0]))
        waiting = await ask(lambda client: client.hgetall(self._keys[1]))
        return read_status(channel, seconds + micros / 1e6, _texts(state), _texts(waiting))

    async def aclose(self) -> None:
        await self._connection.aclose()


def _texts(found: Any) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _checked_redis_url(url: object) -> str:
    if not isinstance(url, str):
        msg = f"url: must be str, not {type(url).__name__}"
        raise ConfigurationError(msg)
    try:
        import_module("redis")
    except ImportError:
        raise ConfigurationError("RedisLimits needs redis-py: pip install 'bandwidth-mfa-async[redis]'") from None
    if not is_valid_redis_url(url):
        raise ConfigurationError(_URL_FORM)
    try:
        # Options that redis-py does not know come out only when it makes a connection object; this opens none.
        make_client(url).connection_pool.make_connection()
    except Exception:  # noqa: BLE001 - its text may quote the password
        raise ConfigurationError(_URL_FORM) from None
    return url


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_KEY:
        msg = f"{name}: must be a text of 1 to {_MAX_KEY} characters, like '9900000'"
        raise ConfigurationError(msg)
    if not value.isprintable() or any(char in "{} " for char in value):
        msg = f"{name}: must not hold braces, blanks or control characters"
        raise ConfigurationError(msg)
    return value


def _checked_seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= _MAX_SECONDS:
        msg = f"{name}: must be a number of seconds of at least 1"
        raise ConfigurationError(msg)
    return float(value)
