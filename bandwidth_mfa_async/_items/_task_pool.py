"""Tasks that work through the items of a bulk run or a chunk."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from .._tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Item = TypeVar("_Item")


class TaskPool(Generic[_Item]):
    """Works on queued items in a bounded number of tasks, which start when they are first needed.

    Args:
        concurrency: maximum number of tasks.
        work: works on one item. It handles every error, also `asyncio.CancelledError`.
        is_in_flight: whether an item's request may have been written, so that `stop` lets it complete.
        abandon: called with each queued item that is not worked on.
        on_cancelled: called when code outside the pool cancelled one of its tasks; should stop the pool.
    """

    def __init__(
        self,
        concurrency: int,
        work: Callable[[_Item], Awaitable[None]],
        *,
        is_in_flight: Callable[[_Item], bool],
        abandon: Callable[[_Item], None],
        on_cancelled: Callable[[], None],
    ) -> None:
        self._concurrency = concurrency
        self._work = work
        self._is_in_flight = is_in_flight
        self._abandon = abandon
        self._on_cancelled = on_cancelled
        self._is_stopping = False
        self._is_closed = False
        self._queue: deque[_Item] = deque()
        self._parked: list[asyncio.Future[None]] = []
        self._tasks = TaskSet()
        self._active: dict[asyncio.Task[None], _Item] = {}

    @property
    def active(self) -> int:
        """The number of items that are worked on."""
        return len(self._active)

    def submit(self, item: _Item) -> None:
        """Queue an item. It wakes a parked task, or starts one; if all are busy, the next free task takes it."""
        self._queue.append(item)
        if self._is_stopping:
            self._abandon_queued()
            return
        while self._parked:
            waiter = self._parked.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._tasks) < self._concurrency:
            self._tasks.start(self._run()).add_done_callback(self._on_done)

    def close(self) -> None:
        """Let the tasks end when the queue is empty."""
        self._is_closed = True
        for waiter in self._parked:
            if not waiter.done():
                waiter.set_result(None)
        self._parked.clear()

    def stop(self) -> None:
        """Abandon the queued items, and cancel the work on items that are not in flight."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.close()
        self._abandon_queued()
        for task, item in tuple(self._active.items()):
            if not self._is_in_flight(item):
                task.cancel()

    def cancel(self) -> None:
        """Stop, and cancel the work on items that are in flight."""
        self.stop()
        for task in tuple(self._active):
            task.cancel()

    async def wait_idle(self) -> None:
        """Wait until no task runs. Without `close` or `stop`, parked tasks run on."""
        await self._tasks.wait_idle()

    def _abandon_queued(self) -> None:
        while self._queue:
            self._abandon(self._queue.popleft())

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._on_cancelled()

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - runs in tasks only
        while True:
            while self._queue:
                item = self._active[task] = self._queue.popleft()
                try:
                    await self._work(item)
                finally:
                    del self._active[task]
            if self._is_closed:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._parked.append(waiter)
            await waiter
