"""Measures the recent rate of accepted messages with two counters."""

from __future__ import annotations

import math


class SlidingWindowCounter:
    """Counts accepted messages in the current and the previous window. O(1) in time and space.

    Args:
        length: seconds per window.
    """

    __slots__ = ("_count", "_end", "_previous_count", "_previous_length", "_start", "length")

    def __init__(self, length: float = 1.0) -> None:
        self.length = length
        self.clear(-math.inf)

    def clear(self, now: float) -> None:
        """Reset the counts and start a window."""
        self._start = now
        self._end = now + self.length
        self._count = 0
        self._previous_count = 0
        self._previous_length = 0.0

    def add(self, now: float, weight: int) -> None:
        """Count accepted messages."""
        if now >= self._end:
            self._roll(now)
        self._count += weight

    @property
    def total(self) -> int:
        """The count that `per_second` divides."""
        return self._count + self._previous_count

    @property
    def started_at(self) -> float:
        """The start of the time that `total` covers."""
        return self._start - self._previous_length

    def per_second(self, now: float) -> float:
        """Return the accepted messages per second over the last one to two windows, without idle time before them."""
        if now >= self._end:
            self._roll(now)
        # A count that has just started is a burst, not a rate: divide by at least one whole window.
        seconds = max(now - self.started_at, self.length)
        return self.total / seconds

    def _roll(self, now: float) -> None:
        if now >= self._end + self.length:
            self.clear(now)
            return
        self._previous_count, self._previous_length = self._count, self._end - self._start
        self._count = 0
        self._start, self._end = self._end, self._end + self.length
