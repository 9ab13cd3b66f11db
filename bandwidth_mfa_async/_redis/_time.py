"""Redis's clock as a process knows it, so that an operation carries its deadline in Redis's time."""

from __future__ import annotations

import math


class RedisTime:
    """The difference between Redis's clock and this process's monotonic one.

    Redis may execute an operation long after it was written, for example when it was suspended.
    """

    def __init__(self) -> None:
        self._offset = math.inf  # milliseconds

    @property
    def is_known(self) -> bool:
        """Whether Redis's time is known."""
        return self._offset < math.inf

    def update(self, asked_at: float, now: float, *, reset: bool) -> None:
        """Record Redis's time in a reply.

        Args:
            asked_at: when the question was sent, in the clock's seconds.
            now: Redis's time, in milliseconds.
            reset: whether the old estimate is known to be wrong.
        """
        # Redis read its clock after the question was sent, so no estimate is too low; the lowest is the best.
        offset = now - asked_at * 1000
        self._offset = offset if reset else min(self._offset, offset)

    def at(self, deadline: float) -> int:
        """Return Redis's time in milliseconds at a time of the clock, or 0 if it is not known."""
        return math.ceil(deadline * 1000 + self._offset) if self.is_known else 0
