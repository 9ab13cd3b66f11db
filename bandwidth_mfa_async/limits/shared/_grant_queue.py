"""The waiters of this process and the permits granted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lanes import INTERACTIVE, LaneQueue, Waiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..._validation import Lane
    from .._permit import Permit


class GrantWaiter(Waiter):
    """A suspended caller. If its future ends without a permit, it must ask again."""

    __slots__ = ("permit",)

    def __init__(self, future: asyncio.Future[bool], weight: int, lane: Lane) -> None:
        super().__init__(future, weight, lane)
        self.permit: Permit | None = None


class GrantQueue:
    """Two lanes of waiters, and the granted permits that are available to them."""

    __slots__ = ("_lanes", "available")

    def __init__(self) -> None:
        self._lanes = LaneQueue()
        self.available = 0
        """Granted permits (segments) that are not used yet."""

    def __len__(self) -> int:
        return len(self._lanes)

    def __repr__(self) -> str:
        lanes = self._lanes
        return f"available={self.available}, interactive={lanes.count('interactive')}, bulk={lanes.count('bulk')}"

    def must_wait(self, lane: Lane) -> bool:
        """Return True if a new caller of this lane would overtake a waiter."""
        return self._lanes.must_wait(lane)

    def shortfall(self, weight: int, lane: Lane) -> int:
        """Return how many more permits are needed before a new caller of this weight is granted."""
        return self._lanes.weight_ahead(lane) + weight - self.available

    def shortfalls(self) -> tuple[int, int]:
        """Return how many more permits the waiters need: in the interactive lane, and in the bulk lane."""
        interactive = max(0, self._lanes.weight_ahead(INTERACTIVE) - self.available)
        total = self._lanes.weight_ahead("bulk") - self.available
        return interactive, max(0, total - interactive)

    def head_shortfall(self) -> int:
        """Return how many more permits the next waiter needs; 1 without waiters."""
        head = self._lanes.head()
        return 1 if head is None else max(1, head.weight - self.available)

    def take(self, weight: int) -> bool:
        """Take available permits, if there are enough."""
        if self.available < weight:
            return False
        self.available -= weight
        return True

    def take_all(self) -> int:
        """Take all available permits; return their number."""
        count, self.available = self.available, 0
        return count

    def append(self, waiter: GrantWaiter) -> None:
        """Add a waiter at the end of its lane."""
        self._lanes.append(waiter)

    def remove(self, waiter: GrantWaiter) -> bool:
        """Remove a waiter from any position; return whether it was queued."""
        return self._lanes.remove(waiter)

    def serve(self, make_permit: Callable[[int, Lane], Permit]) -> None:
        """Hand out the available permits in order. A heavy waiter at the head holds up the others."""
        while (head := self._lanes.head()) is not None and self.available >= head.weight:
            self._lanes.remove(head)
            if head.future.done():  # cancelled, but its task has not run yet: no permit is used
                continue
            self.available -= head.weight
            if isinstance(head, GrantWaiter):
                head.permit = make_permit(head.weight, head.lane)
            head.future.set_result(True)

    def release_all(self) -> None:
        """Resume every waiter without a permit."""
        while (head := self._lanes.head()) is not None:
            self._lanes.remove(head)
            if not head.future.done():
                head.future.set_result(True)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter a separate error."""
        self._lanes.abort(make_error)
