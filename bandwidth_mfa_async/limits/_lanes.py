"""A FIFO queue of waiters with two lanes; the interactive lane goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._validation import Lane

INTERACTIVE: Final = "interactive"


class Waiter:
    """A suspended caller. The result of its future is True when it was granted, False when its deadline passed."""

    __slots__ = ("future", "lane", "weight")

    def __init__(self, future: asyncio.Future[bool], weight: int, lane: Lane) -> None:
        self.future = future
        self.weight = weight
        self.lane: Lane = lane


class LaneQueue:
    """Waiters in the order in which they are granted. Removing one from the middle costs O(1)."""

    __slots__ = ("_bulk", "_interactive", "_weights")

    def __init__(self) -> None:
        # OrderedDict, not dict: finding the first key of a plain dict scans the deleted entries before it.
        self._interactive: OrderedDict[Waiter, None] = OrderedDict()
        self._bulk: OrderedDict[Waiter, None] = OrderedDict()
        self._weights = {INTERACTIVE: 0, "bulk": 0}

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def count(self, lane: Lane) -> int:
        """Return the number of waiters in a lane."""
        return len(self._interactive if lane == INTERACTIVE else self._bulk)

    def weight_ahead(self, lane: Lane) -> int:
        """Return the total weight that is granted before a new waiter of this lane."""
        ahead = self._weights[INTERACTIVE]
        return ahead if lane == INTERACTIVE else ahead + self._weights["bulk"]

    def must_wait(self, lane: Lane) -> bool:
        """Return True if a new caller of this lane would overtake a waiter."""
        return bool(self._interactive) or (lane != INTERACTIVE and bool(self._bulk))

    def append(self, waiter: Waiter) -> None:
        """Add a waiter at the end of its lane."""
        (self._interactive if waiter.lane == INTERACTIVE else self._bulk)[waiter] = None
        self._weights[waiter.lane] += waiter.weight

    def head(self) -> Waiter | None:
        """Return the waiter that is granted next, or None."""
        for queue in (self._interactive, self._bulk):
            if queue:
                return next(iter(queue))
        return None

    def remove(self, waiter: Waiter) -> bool:
        """Remove a waiter from any position; return whether it was queued."""
        queue = self._interactive if waiter.lane == INTERACTIVE else self._bulk
        if waiter not in queue:
            return False
        del queue[waiter]
        self._weights[waiter.lane] -= waiter.weight
        return True

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Empty both lanes and give every waiter a separate error."""
        while (waiter := self.head()) is not None:
            self.remove(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(make_error())


def was_granted(future: asyncio.Future[bool]) -> bool:
    """Return whether a caller that is being cancelled had already been granted."""
    # Reading the exception also prevents the loop's "exception was never retrieved" report.
    return future.done() and not future.cancelled() and future.exception() is None and future.result()
