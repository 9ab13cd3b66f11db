"""`RedisLimits`: one limit for all processes and machines of an account, stored in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..._config import Rate, parse_rate
from ..._frames import clears_locals
from ..._redis._connect import checked_redis_url
from ..._redis._fail_fast import OPERATION_TIMEOUT, FailFastConnection, StoreUnavailableError
from ..._redis._script import Script, as_text
from ..._validation import checked_name, checked_seconds
from ...errors import ConfigurationError
from ._shared_limiter import SharedLimiter
from ._status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..._clock import Clock
    from ..._validation import Channel
    from ...telemetry import Event
    from ._status import SharedStatus


# For display only; no call waits for it.
_STATUS_TIMEOUT: Final = 2.0


_MAX_NAME: Final = 200
_RIGHTS: Final = "+evalsha +eval +time +hgetall +hmset +hset +hdel +pexpire"


# Read on import, not in the event loop.
assert __package__ is not None  # noqa: S101 - an imported module has one
_SCRIPT: Final = Script.load(__package__, "adaptive.lua")


class RedisLimits:
    """The account's limits, shared through Redis (5 or later): ``Limits(shared=RedisLimits(url, key=account_id))``.

    All processes follow the limit that one of them learns from a 429. Interactive sends go before the bulk items of
    every process, and the processes take turns. Time is Redis's own, so clocks need not agree.

    Redis never makes a call fail. If it cannot be reached, hangs, rejects the password or cannot run the script, each
    process continues at its own recent share and retries about every second. One log line says so, with the reason.

    The same object may serve several clients. Every client opens one connection per channel at its first send and
    closes it in `aclose`.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database in redis-py's format.
        key: the owner of the limit: the account id. Two accounts never share one.
        fallback_rate: the rate of this process if it starts without Redis and has no known share: a `Rate` or a text
            like ``"5/s"``. None: the client's configured rate, or unlimited until the first 429.
        prefix: the prefix of every Redis key.
        expires: seconds after which an unused limit is deleted.
        required: raise ConfigurationError from a call if Redis rejects the client: its password, its permissions, its
            version. An unreachable Redis is never an error.

    Raises:
        ConfigurationError: the URL, the key or another value is invalid, or redis-py is not installed.
    """

    @clears_locals
    def __init__(  # noqa: PLR0913 - keyword-only but the first
        self,
        url: str,
        *,
        key: str,
        fallback_rate: Rate | str | None = None,
        prefix: str = "bandwidth-mfa",
        expires: float = 86_400.0,
        required: bool = False,
    ) -> None:
        self._url = checked_redis_url("url", url, user="RedisLimits", extra="redis")
        self._key = checked_name("key", key, _MAX_NAME, "9900000")
        self._prefix = checked_name("prefix", prefix, _MAX_NAME, "bandwidth-mfa")
        fallback_rate = parse_rate("fallback_rate", fallback_rate)
        if fallback_rate is not None and not isinstance(fallback_rate, Rate):
            raise ConfigurationError("fallback_rate: must be a Rate, a text like '5/s', or None")
        self._fallback = None if fallback_rate is None else fallback_rate.per_second
        self._expires = checked_seconds("expires", expires, minimum=1)
        if not isinstance(required, bool):
            raise ConfigurationError("required: must be True or False")
        self._required = required
        self._script = _SCRIPT

    def __repr__(self) -> str:
        return f"RedisLimits(key={self._key!r}, prefix={self._prefix!r})"  # the URL may hold a password

    def redis_keys(self, channel: str) -> tuple[str, str]:
        """Return the keys of a channel's state and of its waiting processes; braces keep them on one cluster node."""
        state = f"{self._prefix}:{{{self._key}}}:{channel}"
        return state, f"{state}:waiting"

    async def status(self, channel: Channel = "messaging") -> SharedStatus:
        """Return the state that the processes share, for display.

        Args:
            channel: ``"messaging"`` or ``"voice"``.

        Raises:
            ConfigurationError: Redis cannot be reached or rejects the client. The text names the reason, not the
                address.
        """
        store = self._store(channel, None, _STATUS_TIMEOUT)
        try:
            return await store.status(channel)
        except StoreUnavailableError as error:
            msg = f"Redis cannot be used: {error}"
            raise ConfigurationError(msg) from None
        except (KeyError, ValueError):  # the hash does not come from our script
            raise ConfigurationError(
                "Redis cannot be used: a key of ours holds something else; choose another prefix"
            ) from None
        finally:
            await store.aclose()

    def _store(self, channel: str, clock: Clock | None, timeout: float = OPERATION_TIMEOUT) -> _RedisStore:
        rights = f"{_RIGHTS} ~{self._prefix}:*"
        connection = FailFastConnection(self._url, timeout, rights=rights, clock=clock)
        return _RedisStore(connection, self.redis_keys(channel), self._script)

    def limiter(  # noqa: PLR0913 - the parameters of ChannelLimiter
        self,
        channel: str,
        *,
        rate: Rate | None,
        adaptive: bool,
        clock: Clock,
        emit: Callable[[Event], None] | None = None,
        max_pause: float = 60.0,
    ) -> SharedLimiter:
        """Return one channel's limiter for one client, which closes it. It connects at its first use.

        Args:
            channel: ``"messaging"`` or ``"voice"``.
            rate: the account's known limit, for all processes together; None when unknown.
            adaptive: adapt the rate to 429 answers.
            clock: provides time and timers.
            emit: receives events; None to build none.
            max_pause: the longest pause for a Retry-After, in seconds.
        """
        return SharedLimiter(
            channel,
            store=self._store(channel, clock),
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
        connection: closed by `aclose`.
        keys: of the channel's state and of its waiting processes.
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
    return {as_text(name): as_text(value) for name, value in found.items()}
