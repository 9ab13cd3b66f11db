"""A background task that runs only while a step is due."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..._clock import Clock


class BackgroundTask:
    """Runs a step whenever one is due, one after another, in a task that ends when no step is due.

    Args:
        clock: measures `due`.
        due: returns when the next step is due; infinity for never. Called again after each step and each `notify`.
        step: runs one step; must not raise.
    """

    def __init__(self, clock: Clock, due: Callable[[], float], step: Callable[[], Awaitable[None]]) -> None:
        self._clock = clock
        self._due = due
        self._step = step
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._wakeup_at = math.inf
        self._closed = False

    def notify(self) -> None:
        """Re-evaluate when the next step is due, because something has changed."""
        if self._closed:
            return
        wakeup = self._wakeup
        if not self._running:
            if self._due() < math.inf:
                # Not the caller's context: the task, and the connection that it opens, live longer than the call.
                # `_running` is not derived from the task, because an eager one may end inside `create_task`.
                self._running = True
                self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
                self._task.add_done_callback(self._on_end)
        elif wakeup is not None and not wakeup.done() and self._due() < self._wakeup_at:
            wakeup.set_result(None)

    def abort(self) -> None:
        """Cancel the task and start no other."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Cancel the task and wait until it has ended."""
        self.abort()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._running = False
        if not task.cancelled():
            self.notify()  # something may have become due after the last look

    async def _run(self) -> None:
        while (due := self._due()) < math.inf and not self._closed:
            if due <= self._clock.monotonic():
                await self._step()
            else:
                await self._sleep_until(due)

    async def _sleep_until(self, when: float) -> None:
        wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakeup, self._wakeup_at = wakeup, when
        timer = self._clock.call_at(when, lambda: None if wakeup.done() else wakeup.set_result(None))
        try:
            await wakeup
        finally:
            timer.cancel()
            self._wakeup = None
