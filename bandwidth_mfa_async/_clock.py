"""The source of time for every wait, deadline and expiry, so that tests can control it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")


class TimerHandle(Protocol):
    """A timer set by `Clock.call_at`."""

    def cancel(self) -> None:
        """Prevent the callback from running; no effect if it already ran."""


class Clock(Protocol):
    """The library's view of time. Every wait, deadline and expiry uses a clock."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes backwards; only differences are meaningful."""
        ...

    def time(self) -> float:
        """Return seconds since the Unix epoch (wall time)."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that never goes backwards and also counts while the machine is suspended."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        """Run `callback` in the running loop when `monotonic()` reaches `when`."""
        ...


# Linux has a clock of its own for this; elsewhere `monotonic` counts suspensions.
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class SystemClock:
    """Real time, from the running event loop's clock, so that its timeouts and ours agree."""

    def monotonic(self) -> float:
        """Return the running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        """Return wall time in seconds since the epoch."""
        return time.time()

    def boottime(self) -> float:
        """Return seconds since the machine started, suspensions included."""
        return time.clock_gettime(_BOOTTIME) if _BOOTTIME is not None else time.monotonic()

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        """Schedule `callback` on the running loop, in an empty context."""
        # A timer may outlive the call that sets it; the loop keeps even a cancelled one until its time has come.
        return asyncio.get_running_loop().call_at(when, callback, context=contextvars.Context())


class _ManualTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that moves only when a test advances it, for tests that must not sleep.

    Args:
        monotonic: the initial value of `monotonic()`, in seconds.
        wall: the initial value of `time()`, in seconds since the Unix epoch.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_750_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall_offset = wall - monotonic
        self._suspended = 0.0
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def __repr__(self) -> str:
        return f"ManualClock(monotonic={self._monotonic:.6f}, timers={self.pending})"

    @property
    def pending(self) -> int:
        """The number of timers that are set."""
        return sum(1 for _, _, timer in self._timers if not timer.cancelled)

    @property
    def next_timer(self) -> float | None:
        """The `monotonic()` time of the earliest timer; None if no timer is set."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def monotonic(self) -> float:
        """Return the current time of this clock."""
        return self._monotonic

    def time(self) -> float:
        """Return wall time, which advances with `monotonic()`."""
        return self._monotonic + self._wall_offset

    def boottime(self) -> float:
        """Return a time that advances with `monotonic()`."""
        return self._monotonic + self._suspended

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        """Run `callback` when the clock is advanced to `when` or beyond."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def tick(self, seconds: float) -> None:
        """Advance the time and run the timers that are due, in order, without yielding to the loop.

        Args:
            seconds: by how much, at least 0.
        """
        if not seconds >= 0:
            msg = "seconds: must be at least 0; time does not go backwards"
            raise ValueError(msg)
        target = self._monotonic + seconds
        while (due := self.next_timer) is not None and due <= target:
            _, _, timer = heapq.heappop(self._timers)
            self._monotonic = max(self._monotonic, due)
            timer.callback()
        self._monotonic = target

    async def advance(self, seconds: float, *, settle: int = 20) -> None:
        """Advance the time; let the loop's other tasks run before, between and after the timers.

        Args:
            seconds: by how much, at least 0.
            settle: how often to yield to the loop at every stop.
        """
        target = self._monotonic + seconds
        await self._settle(settle)
        while (due := self.next_timer) is not None and due <= target:
            self.tick(max(0.0, due - self._monotonic))
            await self._settle(settle)
        self.tick(max(0.0, target - self._monotonic))
        await self._settle(settle)

    @staticmethod
    async def _settle(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)


# Iterations in which an event loop reads what its sockets hold, and tasks that wait for that continue. asyncio needs
# two; uvloop runs timers before it reads, and needs one more.
_READ_ITERATIONS: Final = 3


def call_after_reads(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], object], context: contextvars.Context
) -> None:
    """Call `callback` once the loop has read what its sockets hold now.

    A timer that comes due while the loop is blocked runs before the tasks whose data arrived in time, with uvloop even
    before that data is read. A timeout that goes through this function lets these tasks end first.
    """

    def iterate(left: int) -> None:
        """Wait for one iteration of the loop."""
        if left:
            loop.call_soon(iterate, left - 1, context=context)
        else:
            callback()

    iterate(_READ_ITERATIONS)


@contextlib.contextmanager
def alarm(clock: Clock, when: float | None, callback: Callable[[], object]) -> Generator[None]:
    """Run `callback` when `clock.monotonic()` reaches `when`, unless the block ends before.

    Args:
        clock: the source of time.
        when: in the clock's monotonic seconds; None for never.
        callback: must not block.
    """
    timer = None if when is None else clock.call_at(when, callback)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


async def sleep_until(clock: Clock, when: float) -> None:
    """Wait until `clock.monotonic()` reaches `when`; return at once if it already has."""
    if clock.monotonic() < when:
        await wait_until(clock, when, asyncio.get_running_loop().create_future())


async def wait_until(clock: Clock, when: float | None, future: asyncio.Future[Any]) -> bool:
    """Wait for a future, which is not cancelled; return whether it is done.

    Args:
        clock: the source of time.
        when: when to stop waiting, in the clock's monotonic seconds; None for never.
        future: what to wait for.
    """
    if future.done():
        return True
    waiter = asyncio.get_running_loop().create_future()

    def wake(_future: object = None) -> None:
        """End the wait."""
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        with alarm(clock, when, wake):
            await waiter
    finally:
        future.remove_done_callback(wake)
    return future.done()


async def run_until(clock: Clock, work: Awaitable[T], when: float) -> T:
    """Return the result of `work`; cancel it when `clock.monotonic()` reaches `when`.

    Raises:
        TimeoutError: `work` had not ended by then.
    """
    task = asyncio.ensure_future(work)
    expired = False

    def expire() -> None:
        """Cancel the work."""
        nonlocal expired
        expired = True
        task.cancel()

    try:
        with alarm(clock, when, expire):
            await asyncio.wait((task,))
    finally:
        task.cancel()
    if expired and task.cancelled():
        raise TimeoutError
    return task.result()


class Sleeper:
    """Sleeps that can all be ended early, so that closing a client does not wait for backoffs.

    Args:
        clock: the source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended = False

    async def sleep(self, seconds: float) -> bool:
        """Sleep; return True, or False if `end` ended the sleep early.

        Args:
            seconds: how long; 0 or less yields once to the event loop.
        """
        if self._ended:
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return not await wait_until(self._clock, self._clock.monotonic() + seconds, waiter)
        finally:
            self._waiting.discard(waiter)

    def end(self) -> None:
        """End every current sleep, and every later one immediately."""
        self._ended = True
        for waiter in tuple(self._waiting):
            if not waiter.done():
                waiter.set_result(None)
