"""The in-flight semaphore: so many attempts at once, the interactive lane first."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from .._validation import checked_count, checked_lane
from ..errors import DeadlineExceededError
from ._lanes import LaneQueue, Waiter, was_granted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from .._validation import Lane


class PrioritySemaphore:
    """A semaphore with two lanes: a free slot goes to the longest waiting interactive caller, then to bulk.

    Args:
        limit: how many slots there are.
        clock: for deadlines.

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
        """How many slots are in use."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many callers wait, in both lanes."""
        return len(self._queue)

    def try_acquire(self, lane: Lane = "interactive") -> bool:
        """Take a slot if one is free and nobody would be overtaken; give it back with `release`.

        Raises:
            ConfigurationError: there is no such lane.
            BaseException: what `abort` was given, after it.
        """
        checked_lane(lane)
        if self._abort_error is not None:
            raise self._abort_error()
        # A slot is never free while somebody waits: `release` hands it on.
        if self._taken < self._limit:
            self._taken += 1
            return True
        return False

    async def acquire(self, lane: Lane = "interactive", *, deadline: float | None = None) -> None:
        """Take a slot, waiting for it; give it back with `release`. A cancelled caller loses no slot.

        Args:
            lane: which line to wait in.
            deadline: in the clock's seconds.

        Raises:
            DeadlineExceededError: no slot was free in time; nothing was sent.
            ConfigurationError: there is no such lane.
            BaseException: what `abort` was given, from then on.
        """
        if self.try_acquire(lane):
            return
        waiter = Waiter(asyncio.get_running_loop().create_future(), 1, lane)
        self._queue.append(waiter)
        timer = None if deadline is None else self._clock.call_at(deadline, partial(self._expire, waiter))
        try:
            granted = await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                self.release()
            else:
                self._queue.remove(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise DeadlineExceededError(
                "the call's time ran out while every in-flight slot was taken; raise max_in_flight or the timeout",
                attempts=0,
            )

    def release(self) -> None:
        """Give a slot back: to the next in line, when somebody waits."""
        while (head := self._queue.head()) is not None:
            self._queue.remove(head)
            if not head.future.done():
                head.future.set_result(True)
                return
        self._taken -= 1

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter, and everyone who asks later, an error of its own; taken slots can still be released."""
        self._abort_error = make_error
        self._queue.abort(make_error)

    def _expire(self, waiter: Waiter) -> None:
        if self._queue.remove(waiter) and not waiter.future.done():
            waiter.future.set_result(False)
