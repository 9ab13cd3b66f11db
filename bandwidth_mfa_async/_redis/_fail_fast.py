"""A connection that gives up after a quarter of a second, for limits that work without Redis too."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from ._connect import close_quietly, make_client
from ._errors import classify_redis_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


class StoreUnavailableError(Exception):
    """The shared state cannot be reached or used now.

    Args:
        reason: why, without addresses or credentials.
        refused: whether it was reached and refused us, which waiting does not mend.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


OPERATION_TIMEOUT: Final = 0.25
"""Seconds a Redis call may take, connecting included; redis-py's own default is for ever."""
_SLICES: Final = 10


class FailFastConnection:
    """One connection, opened when it is first needed and again after every failure.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: seconds one operation may take, connecting included.
    """

    def __init__(self, url: str, timeout: float = OPERATION_TIMEOUT) -> None:
        self._timeout = timeout
        self._url = url
        self._client: Any = None

    async def call(self, operation: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask once, for no longer than the timeout.

        Args:
            operation: is given a redis-py client and returns an awaitable of the answer.

        Raises:
            StoreUnavailableError: Redis cannot be reached, did not answer in time or refused.
        """
        from redis.exceptions import ConnectionError as RedisConnectionError

        try:
            async with _stall_aware_timeout(self._timeout):
                was_open = self._client is not None
                try:
                    return await operation(self._open())
                except RedisConnectionError:
                    # A connection that was idle may have been closed by the other side, which is no outage.
                    if not was_open:
                        raise
                await self.aclose()
                return await operation(self._open())
        except asyncio.CancelledError:
            await self.aclose()  # its answer is still on the way, and would be taken for the next one's
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, sends go on
            failure = _unavailable(error, self._timeout)
        await self.aclose()
        raise failure

    def _open(self) -> Any:
        if self._client is None:
            self._client = make_client(self._url)
        return self._client

    async def aclose(self) -> None:
        """Close the connection, if there is one; the next operation opens another."""
        client, self._client = self._client, None
        if client is not None:
            await close_quietly(lambda: client.aclose(close_connection_pool=True), OPERATION_TIMEOUT)


@contextlib.asynccontextmanager
async def _stall_aware_timeout(seconds: float) -> AsyncGenerator[None]:
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
_REJECTIONS: Final = (
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


def _unavailable(error: Exception, timeout: float) -> StoreUnavailableError:
    from redis.exceptions import RedisError

    meaning = classify_redis_error(error, _REJECTIONS) if isinstance(error, RedisError) else None
    if meaning is not None:
        return StoreUnavailableError(meaning, refused=True)
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(f"no answer within {timeout:g} s")
    return StoreUnavailableError(f"it cannot be reached: {type(error).__name__}")
