"""A task that runs only while there is something to do."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..._clock import Clock


class BackgroundTask:
    """Does a step whenever one is due, one after another, in a task that ends when none will be.

    Args:
        clock: what `due` is measured with.
        due: says when the next step is due; infinity for never. It is asked again after each step and `notify`.
        step: does it; must not raise.
    """

    def __init__(self, clock: Clock, due: Callable[[], float], step: Callable[[], Awaitable[None]]) -> None:
        self._clock = clock
        self._due = due
        self._step = step
        self._running: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._wakeup_at = math.inf
        self._closed = False

    def notify(self) -> None:
        """Have another look at what is due: something has changed."""
        if self._closed:
            return
        wakeup = self._wakeup
        if self._running is None:
            if self._due() < math.inf:
                self._running = asyncio.get_running_loop().create_task(self._run())
        elif wakeup is not None and not wakeup.done() and self._due() < self._wakeup_at:
            wakeup.set_result(None)

    def abort(self) -> None:
        """End the task, and let none begin again."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()

    async def aclose(self) -> None:
        """The same, and wait until it has ended."""
        self.abort()
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while (due := self._due()) < math.inf and not self._closed:
                if due <= self._clock.monotonic():
                    await self._step()
                else:
                    await self._sleep_until(due)
        finally:
            self._running = None

    async def _sleep_until(self, when: float) -> None:
        wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakeup, self._wakeup_at = wakeup, when
        timer = self._clock.call_at(when, lambda: None if wakeup.done() else wakeup.set_result(None))
        try:
            await wakeup
        finally:
            timer.cancel()
            self._wakeup = None
