"""The concurrency limit: a semaphore with an interactive and a bulk lane."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from .._clock import alarm
from .._validation import checked_count, checked_lane
from ..errors import DeadlineExceededError
from ._lanes import LaneQueue, Waiter, was_granted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from .._validation import Lane


class PrioritySemaphore:
    """A semaphore with two lanes.

    A freed slot goes to the longest waiting interactive caller, or to the longest waiting bulk caller when there is
    none.

    Args:
        limit: the number of slots.
        clock: measures deadlines.

    Raises:
        ConfigurationError: the limit is not a whole number of at least 1.
    """

    def __init__(self, limit: int, *, clock: Clock) -> None:
        checked_count("max_in_flight", limit)
        self._limit = limit
        self._taken = 0
        self._clock = clock
        self._queue = LaneQueue()
        self._abort_error: Callable[[], BaseException] | None = None

    def __repr__(self) -> str:
        waiting = f"interactive={self._queue.count('interactive')}, bulk={self._queue.count('bulk')}"
        return f"PrioritySemaphore({self._taken} of {self._limit} taken, {waiting} waiting)"

    @property
    def taken(self) -> int:
        """The number of slots in use."""
        return self._taken

    @property
    def waiting(self) -> int:
        """The number of waiting callers in both lanes."""
        return len(self._queue)

    def try_acquire(self, lane: Lane = "interactive") -> bool:
        """Take a slot if one is free and no waiter would be overtaken. Free it with `release`.

        Raises:
            ConfigurationError: there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        checked_lane(lane)
        if self._abort_error is not None:
            raise self._abort_error()
        # No slot is free while callers wait: `release` hands it over.
        if self._taken < self._limit:
            self._taken += 1
            return True
        return False

    async def acquire(self, lane: Lane = "interactive", *, deadline: float | None = None) -> None:
        """Take a slot, waiting if necessary. Free it with `release`. A cancelled caller holds no slot.

        Args:
            lane: the lane to wait in.
            deadline: in the clock's seconds.

        Raises:
            DeadlineExceededError: no slot became free in time; nothing was sent.
            ConfigurationError: there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        if self.try_acquire(lane):
            return
        waiter = Waiter(asyncio.get_running_loop().create_future(), 1, lane)
        self._queue.append(waiter)
        try:
            with alarm(self._clock, deadline, partial(self._expire, waiter)):
                granted = await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                self.release()
            else:
                self._queue.remove(waiter)
            raise
        if not granted:
            raise DeadlineExceededError(
                "the call's deadline passed while every in-flight slot was taken; raise max_in_flight or the timeout",
                attempts=0,
            )

    def release(self) -> None:
        """Free a slot, or hand it to the next waiter."""
        while (head := self._queue.head()) is not None:
            self._queue.remove(head)
            if not head.future.done():
                head.future.set_result(True)
                return
        self._taken -= 1

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter, current and future, a separate error. Slots in use can still be released."""
        self._abort_error = make_error
        self._queue.abort(make_error)

    def _expire(self, waiter: Waiter) -> None:
        if self._queue.remove(waiter) and not waiter.future.done():
            waiter.future.set_result(False)
