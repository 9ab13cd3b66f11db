"""Callers of this process who wait for leased permits, and the permits in hand for them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lanes import INTERACTIVE, LaneQueue, Waiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..._validation import Lane
    from .._permit import Permit


class GrantWaiter(Waiter):
    """A suspended caller; served without a permit, it is to ask again elsewhere."""

    __slots__ = ("permit",)

    def __init__(self, future: asyncio.Future[bool], weight: int, lane: Lane) -> None:
        super().__init__(future, weight, lane)
        self.permit: Permit | None = None


class GrantQueue:
    """Two lanes of waiters and the permits that were leased for whoever comes first."""

    __slots__ = ("_lanes", "available")

    def __init__(self) -> None:
        self._lanes = LaneQueue()
        self.available = 0
        """Leased permits (segments) that nobody has used yet."""

    def __len__(self) -> int:
        return len(self._lanes)

    def __repr__(self) -> str:
        lanes = self._lanes
        return f"in hand={self.available}, interactive={lanes.count('interactive')}, bulk={lanes.count('bulk')}"

    def must_wait(self, lane: Lane) -> bool:
        """Tell whether a newcomer of this lane would overtake somebody if it were served now."""
        return self._lanes.must_wait(lane)

    def shortfall(self, weight: int, lane: Lane) -> int:
        """Return how many more permits there must be before a newcomer of this weight is served."""
        return self._lanes.weight_ahead(lane) + weight - self.available

    def shortfalls(self) -> tuple[int, int]:
        """Return how many more permits those who wait need, in the interactive lane and in the bulk lane."""
        interactive = max(0, self._lanes.weight_ahead(INTERACTIVE) - self.available)
        total = self._lanes.weight_ahead("bulk") - self.available
        return interactive, max(0, total - interactive)

    def head_shortfall(self) -> int:
        """Return how many more permits whoever is next needs; 1 when nobody waits."""
        head = self._lanes.head()
        return 1 if head is None else max(1, head.weight - self.available)

    def take(self, weight: int) -> bool:
        """Take from the permits in hand, if there are enough."""
        if self.available < weight:
            return False
        self.available -= weight
        return True

    def take_all(self) -> int:
        """Empty the hand; return what was in it."""
        count, self.available = self.available, 0
        return count

    def append(self, waiter: GrantWaiter) -> None:
        """Put a waiter at the end of its lane."""
        self._lanes.append(waiter)

    def remove(self, waiter: GrantWaiter) -> bool:
        """Take a waiter out, wherever it stands; tell whether it was there."""
        return self._lanes.remove(waiter)

    def serve(self, make_permit: Callable[[int], Permit]) -> None:
        """Hand out what is in hand, in order; a heavy waiter at the head is waited for."""
        while (head := self._lanes.head()) is not None and self.available >= head.weight:
            self._lanes.remove(head)
            if head.future.done():  # cancelled, and its task has not run yet: nothing was used
                continue
            self.available -= head.weight
            if isinstance(head, GrantWaiter):
                head.permit = make_permit(head.weight)
            head.future.set_result(True)

    def release_all(self) -> None:
        """Send everybody away without a permit."""
        while (head := self._lanes.head()) is not None:
            self._lanes.remove(head)
            if not head.future.done():
                head.future.set_result(True)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter an error of its own."""
        self._lanes.abort(make_error)
