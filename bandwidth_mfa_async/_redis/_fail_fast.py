"""A Redis connection that fails after a quarter of a second, for limits that also work without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any, Final

from .._clock import SystemClock, call_after_reads
from ._connect import AgingClient
from ._errors import RedisFault, classify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .._clock import Clock


class StoreUnavailableError(Exception):
    """Raised when the shared state cannot be used now.

    Args:
        reason: why, without addresses or credentials.
        refused: whether Redis answered and refused the operation, which waiting does not change.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


OPERATION_TIMEOUT: Final = 0.25
"""Seconds that an operation may take, connecting included. redis-py has no limit by default."""


class FailFastConnection:
    """One connection, opened at first use, and again after every failure and after about a minute.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: seconds that one operation may take, connecting included.
        rights: the rights that the operations need, in the syntax of ``ACL SETUSER``; for errors.
        clock: measures the age of the connection; by default `SystemClock`.
    """

    def __init__(
        self, url: str, timeout: float = OPERATION_TIMEOUT, *, rights: str = "", clock: Clock | None = None
    ) -> None:
        self._timeout = timeout
        self._rights = rights
        self._url = url
        self._clock = clock or SystemClock()
        self._client: AgingClient | None = None

    async def call(self, operation: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run an operation once, within the timeout.

        Args:
            operation: takes a redis-py client and returns an awaitable of the reply.

        Raises:
            StoreUnavailableError: Redis cannot be reached, did not answer in time or refused the operation.
        """
        from redis.exceptions import ConnectionError as RedisConnectionError

        try:
            if self._client is not None and self._client.is_old:
                await self.aclose()
            async with _stall_aware_timeout(self._timeout):
                was_open = self._client is not None
                try:
                    return await self._open().run(operation)
                except RedisConnectionError:
                    # The server may have closed an idle connection, which is no outage.
                    if not was_open:
                        raise
                await self.aclose()
                return await self._open().run(operation)
        except asyncio.CancelledError:
            await self.aclose()  # the reply is still to come, and would be read as that of the next operation
            raise
        except Exception as error:  # noqa: BLE001 - no failure of Redis may stop sends
            failure = self._unavailable(error)
        await self.aclose()  # also after a failover: the next operation asks again where the primary is
        raise failure

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        failure = classify(error)
        if failure.fault is RedisFault.TIMEOUT:
            return StoreUnavailableError(f"no answer within {self._timeout:g} s")
        return StoreUnavailableError(failure.describe(self._rights), refused=failure.fault.refused)

    def _open(self) -> AgingClient:
        if self._client is None:
            self._client = AgingClient(self._url, self._clock, close_timeout=OPERATION_TIMEOUT)
        return self._client

    async def aclose(self) -> None:
        """Close the connection, if there is one; the next operation opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


@contextlib.asynccontextmanager
async def _stall_aware_timeout(seconds: float) -> AsyncGenerator[None]:
    """Raise TimeoutError after so many seconds, unless the reply was in the socket by then.

    A process that was blocked finds the reply in its socket when it continues. If it treated that as a failure of
    Redis, it would leave the shared limit without a reason.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.Context()
    async with asyncio.timeout(None) as limit:
        ended = False

        def expire() -> None:
            if not ended:
                limit.reschedule(loop.time())

        timer = loop.call_later(seconds, lambda: call_after_reads(loop, expire, context), context=context)
        try:
            yield
        finally:
            ended = True
            timer.cancel()
