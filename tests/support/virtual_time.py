"""An event loop that never waits for time to pass, with real sockets on loopback."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

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


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """When nothing can happen before the next timer, its `time()` jumps there instead of waiting.

    The monotonic clock of aiohttp's pool (keep-alive age, DNS cache) is not virtual.
    """

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        self._skipped = 0.0
        self.executor_jobs = 0
        selector.loop = self

    def time(self) -> float:
        return super().time() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += max(seconds, 1e-6)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self.executor_jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _future: Any) -> None:
        self.executor_jobs -= 1
