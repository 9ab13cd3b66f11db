"""Two first-in-first-out lines of waiters, of which the interactive one is always served first. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._validation import Lane

INTERACTIVE: Final = "interactive"


class Waiter:
    """One suspended caller; its future's result says whether it was served (or ran out of time)."""

    __slots__ = ("future", "lane", "weight")

    def __init__(self, future: asyncio.Future[bool], weight: int, lane: Lane) -> None:
        self.future = future
        self.weight = weight
        self.lane = lane


class LaneQueue:
    """Waiters in the order in which they are to be served; leaving from the middle costs O(1)."""

    __slots__ = ("_bulk", "_interactive", "_weights")

    def __init__(self) -> None:
        # OrderedDict, not dict: taking the first key of a plain dict scans all that were deleted before it.
        self._interactive: OrderedDict[Waiter, None] = OrderedDict()
        self._bulk: OrderedDict[Waiter, None] = OrderedDict()
        self._weights = {INTERACTIVE: 0, "bulk": 0}

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def count(self, lane: Lane) -> int:
        """Return how many wait in one lane."""
        return len(self._interactive if lane == INTERACTIVE else self._bulk)

    def weight_ahead(self, lane: Lane) -> int:
        """Return the weight that would be served before a newcomer of this lane."""
        ahead = self._weights[INTERACTIVE]
        return ahead if lane == INTERACTIVE else ahead + self._weights["bulk"]

    def must_wait(self, lane: Lane) -> bool:
        """Tell whether a newcomer of this lane would overtake somebody if it were served now."""
        return bool(self._interactive) or (lane != INTERACTIVE and bool(self._bulk))

    def append(self, waiter: Waiter) -> None:
        """Put a waiter at the end of its lane."""
        (self._interactive if waiter.lane == INTERACTIVE else self._bulk)[waiter] = None
        self._weights[waiter.lane] += waiter.weight

    def head(self) -> Waiter | None:
        """Return whoever is to be served next."""
        for queue in (self._interactive, self._bulk):
            if queue:
                return next(iter(queue))
        return None

    def remove(self, waiter: Waiter) -> bool:
        """Take a waiter out, wherever it stands; tell whether it was there."""
        queue = self._interactive if waiter.lane == INTERACTIVE else self._bulk
        if waiter not in queue:
            return False
        del queue[waiter]
        self._weights[waiter.lane] -= waiter.weight
        return True

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Empty both lanes, giving every waiter an error of its own."""
        while (waiter := self.head()) is not None:
            self.remove(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(make_error())


def was_granted(future: asyncio.Future[bool]) -> bool:
    """Tell whether a caller that is being cancelled had already been given what it waited for."""
    # Reading the exception also keeps the loop from reporting it as never retrieved.
    return future.done() and not future.cancelled() and future.exception() is None and future.result()
