"""How much was accepted lately, in three integers. No I/O."""

from __future__ import annotations

import math


class SlidingWindowCounter:
    """Counts what was accepted in the current and the previous window of time; O(1) in time and space.

    Args:
        length: seconds of one window.
    """

    __slots__ = ("_count", "_end", "_previous_count", "_previous_length", "_start", "length")

    def __init__(self, length: float = 1.0) -> None:
        self.length = length
        self.clear(-math.inf)

    def clear(self, now: float) -> None:
        """Forget everything and begin a window."""
        self._start = now
        self._end = now + self.length
        self._count = 0
        self._previous_count = 0
        self._previous_length = 0.0

    def add(self, now: float, weight: int) -> None:
        """Count one accepted message."""
        if now >= self._end:
            self._roll(now)
        self._count += weight

    @property
    def total(self) -> int:
        """What `per_second` divides."""
        return self._count + self._previous_count

    @property
    def started_at(self) -> float:
        """Since when `total` is counted."""
        return self._start - self._previous_length

    def per_second(self, now: float) -> float:
        """Return what was accepted a second over the last one to two windows, quiet times before them left out."""
        if now >= self._end:
            self._roll(now)
        # A count that started_at a moment ago is a burst, not a rate: it stands for a whole window at least.
        seconds = max(now - self.started_at, self.length)
        return self.total / seconds

    def _roll(self, now: float) -> None:
        if now >= self._end + self.length:
            self.clear(now)
            return
        self._previous_count, self._previous_length = self._count, self._end - self._start
        self._count = 0
        self._start, self._end = self._end, self._end + self.length
