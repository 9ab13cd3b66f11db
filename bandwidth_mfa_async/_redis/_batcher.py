"""Collects operations for a millisecond and runs them in one call, in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from .._clock import sleep_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._clock import Clock, TimerHandle

LINGER: Final = 0.001
"""Seconds that the first operation of a batch waits for others."""
MAX_BATCH: Final = 2_000


class Batcher:
    """Runs operations in batches, one batch at a time, in the order in which they were submitted.

    Args:
        run: runs a batch and returns one reply per operation.
        clock: the time source.
    """

    def __init__(self, run: Callable[[list[Any]], Awaitable[Sequence[Any]]], clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self._pending: list[tuple[Any, asyncio.Future[Any] | None]] = []
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Event | None = None

    def submit(self, operation: Any) -> None:
        """Schedule an operation without waiting for its reply."""
        self._add(operation, None)

    async def call(self, operation: Any) -> Any:
        """Run an operation and return its reply. The operation runs even if the caller is cancelled.

        Raises:
            LedgerError: the operation may not have run.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(operation, future)
        return await future

    def _add(self, operation: Any, future: asyncio.Future[Any] | None) -> None:
        self._pending.append((operation, future))
        if self._task is None and self._timer is None:
            self._timer = self._clock.call_at(self._clock.monotonic() + LINGER, self._start_task)

    def _start_task(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._run_pending())

    async def _run_pending(self) -> None:
        first = True
        try:
            while self._pending:
                if not first:
                    await sleep_until(self._clock, self._clock.monotonic() + LINGER)
                first = False
                batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
                await self._run_batch(batch)
        finally:
            self._task = None
            if self._idle is not None:
                self._idle.set()

    async def _run_batch(self, batch: list[tuple[Any, asyncio.Future[Any] | None]]) -> None:
        try:
            replies = await self._run([operation for operation, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if future is not None and not future.done():
                    if isinstance(error, Exception):
                        # One instance per caller: each adds its own traceback.
                        future.set_exception(type(error)(*error.args))
                    else:
                        future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), reply in zip(batch, replies, strict=True):
                if future is not None and not future.done():
                    future.set_result(reply)

    async def flush(self) -> None:
        """Wait until every operation submitted so far has run."""
        while self._pending or self._task is not None:
            if self._idle is None:
                self._idle = asyncio.Event()
            self._idle.clear()
            await self._idle.wait()
