"""Event loops that never wait for time to pass, with real sockets on loopback: asyncio's own and uvloop."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import selectors
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Loopback delivers within the send itself; this much real patience covers a busy machine.
_PATIENCE = 0.001


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout is None or timeout <= 0 or self.loop is None:
            return ready if ready or timeout == 0 else super().select(timeout)
        if self.loop.executor_jobs:
            return super().select(min(timeout, 0.05))
        ready = super().select(min(timeout, _PATIENCE))
        if not ready:
            self.loop.skip(timeout)
        return ready


class _Virtual:
    """What both have: the seconds that were skipped, and the threads' jobs, whose time is real."""

    skipped = 0.0
    executor_jobs = 0

    def time(self) -> float:
        return time.monotonic() + self.skipped

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self.executor_jobs += 1
        future = super().run_in_executor(executor, func, *args)  # type: ignore[misc]
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a timeout: their time is real, and the timeout's would be skipped."""
        await super().shutdown_default_executor()  # type: ignore[misc]

    def _job_done(self, _future: Any) -> None:
        self.executor_jobs -= 1


class VirtualTimeLoop(_Virtual, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """When nothing can happen before the next timer, its `time()` jumps there instead of waiting.

    The monotonic clock of aiohttp's pool (keep-alive age, DNS cache) is not virtual.
    """

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def skip(self, seconds: float) -> None:
        self.skipped += max(seconds, 1e-6)


def virtual_uvloop() -> Any:
    """Make a uvloop whose `time()` jumps in the same way. uvloop is imported here, since not every system has it.

    libuv's timers cannot be moved, so this loop keeps the timers of its users. Time jumps once the loop was idle for
    several checks, each a real millisecond and one poll of all sockets apart: what is written leaves the process only
    after the next poll.
    """
    import uvloop

    base: Any = uvloop.Loop

    class VirtualTimeUvloop(_Virtual, base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
            self._order = itertools.count()
            self._quiet = 0  # looks since somebody had something to do
            self._watched = False

        def call_soon(self, *args: Any, **options: Any) -> Any:
            self._quiet = 0
            return super().call_soon(*args, **options)

        def call_soon_threadsafe(self, *args: Any, **options: Any) -> Any:
            self._quiet = 0
            return super().call_soon_threadsafe(*args, **options)

        def call_later(self, delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
            return self.call_at(self.time() + delay, *args, **options)

        def call_at(
            self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
        ) -> asyncio.TimerHandle:
            handle = asyncio.TimerHandle(when, callback, args, self, context)
            heapq.heappush(self._timers, (when, next(self._order), handle))
            self._quiet = 0
            self._watch()
            return handle

        async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
            self.executor_jobs += 1  # of libuv's own threads, which it asks for addresses as well
            try:
                return await super().getaddrinfo(*args, **options)
            finally:
                self.executor_jobs -= 1

        def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
            """Leave it where it is; it is passed over when its time comes."""

        def close(self) -> None:
            self._watched = True  # for good: a timer would keep it from its end
            super().close()

        def _watch(self) -> None:
            if self._timers and not self._watched:
                self._watched = True
                super().call_later(_PATIENCE, self._look, context=contextvars.Context())

        def _look(self) -> None:
            self._watched = False
            while self._timers and self._timers[0][2].cancelled():
                heapq.heappop(self._timers)
            self._quiet += 1
            if self._timers and self._quiet > 3 and not self.executor_jobs:
                self.skipped += max(self._timers[0][0] - self.time(), 0.0)
            while self._timers and self._timers[0][0] <= self.time():
                handle = heapq.heappop(self._timers)[2]
                self.call_soon(self._fire, handle)
            self._watch()

        @staticmethod
        def _fire(handle: asyncio.TimerHandle) -> None:
            if not handle.cancelled():
                handle._run()

    return VirtualTimeUvloop()
