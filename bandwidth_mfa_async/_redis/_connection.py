"""A Redis connection that waits and retries during an outage, and raises errors that say what to do."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from .._clock import sleep_until
from .._process import PerLoop
from ._connect import AgingClient
from ._errors import RedisFault, classify
from ._owner import LEDGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._clock import Clock
    from ._errors import RedisFailure
    from ._owner import Owner
    from ._script import Script

_MIN_WAIT: Final = 0.05
_MAX_WAIT: Final = 1.0
_CLOSE_TIMEOUT: Final = 0.25
_LOG_OUTAGE_AFTER: Final = 1.0
"""Seconds of an outage before it is logged."""


class _LoopState:
    """What belongs to one event loop: the client, and the operations that wait for the end of an outage."""

    def __init__(self) -> None:
        self.client: AgingClient | None = None
        self.has_worked = False
        self.closing: asyncio.Future[None] | None = None
        self.waiters = 0  # operations in an outage that is logged; it is logged once for all of them


class Connection:
    """Runs scripts and commands for the ledger or a store, and retries them while Redis cannot be reached.

    A script whose reply is lost runs twice; every script tolerates that. Each event loop and each process has its own
    connections: those of a closed loop and those that a fork inherited are not used again.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        cluster: whether the URL is that of a Redis Cluster.
        timeout: seconds that one operation may take.
        clock: the time source.
        rights: the rights that the operations need, in the syntax of ``ACL SETUSER``; for errors.
        owner: what uses it; its errors are raised.
    """

    def __init__(  # noqa: PLR0913 - made in two places
        self, url: str, *, cluster: bool, timeout: float, clock: Clock, rights: str = "", owner: Owner = LEDGER
    ) -> None:
        self._owner = owner
        self._url = url
        self._cluster = cluster
        self._timeout = timeout
        self._clock = clock
        self._rights = rights
        self._loops = PerLoop(_LoopState)
        self._closed = False

    async def script(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any] | Callable[[], Sequence[Any]],
        *,
        max_wait: float = math.inf,
    ) -> Any:
        """Run a script.

        Args:
            script: the script.
            keys: its keys.
            arguments: its arguments, or a function that returns those of one try, if they depend on the time.
            max_wait: seconds until the operation has ended, retries included.

        Raises:
            MFAError: the owner's: Redis refuses the operation, could not be reached within `max_wait`, or the
                connection was closed.
        """

        def run(client: Any) -> Awaitable[Any]:
            """Run it once."""
            values: Any = arguments() if callable(arguments) else arguments
            return script.run(client, keys, values)

        return await self.call(run, max_wait=max_wait)

    async def command(self, name: str, *arguments: Any) -> Any:
        """Run a Redis command; see `script`."""
        return await self.call(lambda client: getattr(client, name)(*arguments))

    async def call(self, operation: Callable[[Any], Awaitable[Any]], *, max_wait: float = math.inf) -> Any:
        """Run an operation with a redis-py client, and retry it during an outage; see `script`."""
        state, owner = self._loops.get(), self._owner
        wait = _MIN_WAIT
        began = self._clock.monotonic()
        is_logged = False
        try:
            while True:
                if self._closed:
                    raise owner.error(f"the {owner.name} was closed before Redis answered")
                left = began + max_wait - self._clock.monotonic()
                answer, failure = await self._try(state, operation, max(0.0, min(self._timeout, left)))
                if failure is None:
                    if is_logged and state.waiters == 1:
                        owner.log.warning("the %s can be used again", owner.name)
                    return answer
                now = self._clock.monotonic()
                if now + wait - began > max_wait:
                    raise owner.error(f"the {owner.name} {_describe_outage(failure)}")
                if now - began >= _LOG_OUTAGE_AFTER and not is_logged:
                    is_logged = True
                    state.waiters += 1
                    if state.waiters == 1:
                        owner.log.warning(
                            "the %s %s; the operation is retried until it succeeds",
                            owner.name,
                            _describe_outage(failure),
                        )
                if not self._closed:
                    await self._pause(state, now + wait)
                wait = min(2 * wait, _MAX_WAIT)
        finally:
            state.waiters -= is_logged

    async def _try(
        self, state: _LoopState, operation: Callable[[Any], Awaitable[Any]], seconds: float
    ) -> tuple[Any, RedisFailure | None]:
        """Run an operation once; return its reply, or a failure that a later try may not meet."""
        client: AgingClient | None = None
        try:
            async with asyncio.timeout(seconds):
                client = await self._client(state)
                answer = await client.run(operation)
        except Exception as error:  # noqa: BLE001 - redis-py raises many types
            failure = classify(error)
        else:
            state.has_worked = True
            return answer, None
        if failure.fault.needs_new_connection and client is not None and state.client is client:
            # The name in the URL may lead to the new primary by now, and the certificate files may have changed.
            state.client = None
            await client.aclose()
        # A certificate that has never been accepted is a wrong setting; one that was accepted before will be renewed.
        if not failure.fault.is_transient and not (failure.fault is RedisFault.TLS and state.has_worked):
            raise self._owner.error(f"the {self._owner.name} cannot be used: {failure.describe(self._rights)}")
        return None, failure

    async def _client(self, state: _LoopState) -> AgingClient:
        """Return the client for the next operation: a new one if the present one is old."""
        old = state.client
        if old is not None and not old.is_old:
            return old
        timeout = min(self._timeout, _CLOSE_TIMEOUT)
        client = AgingClient(self._url, self._clock, cluster=self._cluster, close_timeout=timeout)
        state.client = client
        if old is not None:
            await old.retire()
        return client

    async def _pause(self, state: _LoopState, until: float) -> None:
        if state.closing is None:
            state.closing = asyncio.get_running_loop().create_future()
        timer = asyncio.ensure_future(sleep_until(self._clock, until))
        try:
            await asyncio.wait((timer, state.closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def open(self) -> None:
        """Allow operations, also after a close. The connection itself opens at first use."""
        self._closed = False

    def stop_waiting(self) -> None:
        """End all waits for Redis with an error: the owner is closed."""
        self._closed = True
        state = self._loops.get()
        closing, state.closing = state.closing, None
        if closing is not None and not closing.done():
            closing.set_result(None)

    async def aclose(self) -> None:
        """Close; operations that wait for Redis raise the owner's error."""
        self.stop_waiting()
        state = self._loops.get()
        client, state.client = state.client, None
        if client is not None:
            await client.aclose()


def _describe_outage(failure: RedisFailure) -> str:
    if failure.fault in {RedisFault.UNREACHABLE, RedisFault.TIMEOUT}:
        return "cannot be reached: start its Redis, or correct the URL"
    return f"cannot be used: {failure.describe()}"
