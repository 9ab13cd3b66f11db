"""The hard ceiling of a configured rate: how many segments may be written in any window of time."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from .._logger import WAITS
from ._lanes import LaneQueue, Waiter, was_granted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock, TimerHandle
    from .._config import Rate
    from .._validation import Lane
    from ._token_bucket import TokenBucket

MARGIN: Final = 1e-3
"""Seconds that are added to every window: uvloop's clock has milliseconds, and sums of floats are rounded."""

# Writes within this share of a window are counted as one, at the time of the last, to bound the memory.
_RESOLUTION: Final = 1e-3


def effective_rate(rate: Rate) -> float:
    """Return the segments per second that a rate allows: whole segments per period, if it has at least one."""
    return max(math.floor(rate.count + 1e-9), min(rate.count, 1.0)) / rate.per


def window_limits(rate: Rate) -> tuple[tuple[int, float], ...]:
    """Return how many segments may be written in any window: pairs of a number and seconds.

    ``60/m`` gives 60 in any minute and 1 in any second. A rate that is not a whole number per second is rounded up
    for the second: ``90/m`` gives 90 in any minute and 2 in any second.
    """
    limits = {rate.per: math.floor(rate.count + 1e-9)} if rate.count >= 1 else {}
    limits.setdefault(1.0, math.ceil(effective_rate(rate) - 1e-9))
    return tuple((max(1, count), seconds) for seconds, count in limits.items())


class _Window:
    """The writes of the last seconds.

    Args:
        limit: segments that may be written in any window.
        seconds: its length.
    """

    __slots__ = ("_entries", "_resolution", "_total", "length", "limit")

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.length = seconds + MARGIN
        self._resolution = seconds * _RESOLUTION
        # The end of the window that begins at the write, the segments, and the same end for the entry's first write.
        self._entries: deque[tuple[float, int, float]] = deque()
        self._total = 0

    def add(self, now: float, weight: int) -> None:
        """Count a write. A text heavier than the limit fills the window for longer."""
        until = first = now + self.length * max(1.0, weight / self.limit)
        count = weight = min(weight, self.limit)
        if self._entries and until - self._entries[-1][2] < self._resolution:
            _, before, first = self._entries.pop()
            count += before
        self._entries.append((until, count, first))
        self._total += weight

    def entries(self, now: float) -> list[tuple[float, int]]:
        """Return the times and segments of the writes in the window that ends now."""
        return [(until - self.length, count) for until, count, _ in self._entries if until > now]

    def opens_at(self, now: float, weight: int, reserved: int) -> float:
        """Return when this weight may be written; infinity if that depends on writes that are reserved."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            self._total -= entries.popleft()[1]
        excess = self._total + reserved + min(weight, self.limit) - self.limit
        if excess <= 0:
            return now
        for until, count, _ in entries:
            excess -= count
            if excess <= 0:
                return until
        return math.inf


class WriteWindow:
    """Admits writes so that no window of time holds more than a configured rate allows.

    A write is reserved immediately before it is written, when the attempt has a connection, and reported immediately
    afterwards. In between it counts, however long that takes. So whatever delays a write, the bound holds for the
    times at which texts are really written.

    Args:
        clock: provides time and the timer.
        rate: the configured rate.
        bucket: held while attempts wait for their writes, so that it gets no further ahead of them.
    """

    def __init__(self, clock: Clock, rate: Rate, bucket: TokenBucket) -> None:
        self._clock = clock
        self._windows = [_Window(*limit) for limit in window_limits(rate)]
        self._bucket = bucket
        self._reserved = 0
        self._queue = LaneQueue()
        self._timer: TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of attempts that wait for their write."""
        return len(self._queue)

    def try_reserve(self, weight: int) -> bool:
        """Reserve a write for now, without overtaking a waiter; return whether that was possible."""
        now = self._clock.monotonic()
        if self._queue or self._opens_at(now, weight) > now:
            return False
        self._reserved += weight
        return True

    async def reserve(self, weight: int, lane: Lane) -> None:
        """Wait until a write is reserved. A cancelled caller reserves nothing."""
        WAITS.debug("a text of %d segments waits until the configured rate allows its write", weight)
        waiter = Waiter(asyncio.get_running_loop().create_future(), weight, lane)
        self._queue.append(waiter)
        self._bucket.hold()
        self._serve()
        try:
            await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                self._reserved -= weight
            else:
                self._queue.remove(waiter)
            self._serve()
            raise

    def release(self, weight: int) -> None:
        """Give back a reservation whose text was not written."""
        self._reserved -= weight
        self._serve()

    def written(self, weight: int) -> None:
        """Count a reserved text as written by now."""
        self._reserved -= weight
        now = self._clock.monotonic()
        for window in self._windows:
            window.add(now, weight)
        if self._queue:
            self._serve()

    def recent(self, now: float) -> list[tuple[float, int]]:
        """Return the times and weights of the writes that still count."""
        return max(self._windows, key=lambda window: window.length).entries(now)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter a separate error."""
        self._queue.abort(make_error)
        self._serve()

    def _opens_at(self, now: float, weight: int) -> float:
        return max(window.opens_at(now, weight, self._reserved) for window in self._windows)

    def _serve(self) -> None:
        """Reserve for the waiters whose time has come, and set the timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (head := self._queue.head()) is not None:
            now = self._clock.monotonic()
            opens = self._opens_at(now, head.weight)
            if opens > now:
                if opens < math.inf:
                    self._timer = self._clock.call_at(opens, self._serve)
                return
            self._queue.remove(head)
            if not head.future.done():
                self._reserved += head.weight
                head.future.set_result(True)
        self._bucket.resume()


class WriteTurn:
    """The right of one attempt to write its text, which it uses once it has a connection.

    Args:
        window: admits the writes of the channel.
        weight: segments of the text.
        lane: the lane in which the attempt waits.
    """

    __slots__ = ("_lane", "_reserved", "_weight", "_window")

    def __init__(self, window: WriteWindow, weight: int, lane: Lane) -> None:
        self._window = window
        self._weight = weight
        self._lane: Lane = lane
        self._reserved = False

    def try_reserve(self) -> bool:
        """Return whether the text may be written now."""
        if not self._reserved:
            self._reserved = self._window.try_reserve(self._weight)
        return self._reserved

    async def reserve(self) -> None:
        """Wait until the text may be written."""
        await self._window.reserve(self._weight, self._lane)
        self._reserved = True

    def written(self) -> None:
        """Report that the text is written; later calls have no effect."""
        if self._reserved:
            self._reserved = False
            self._window.written(self._weight)

    def release(self) -> None:
        """Report that the text will not be written."""
        if self._reserved:
            self._reserved = False
            self._window.release(self._weight)
