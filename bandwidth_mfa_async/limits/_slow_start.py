"""How a queue leaves after a closed gate when no rate is known: a rate that doubles every second. No I/O, no clock."""

from __future__ import annotations

import math
from typing import Final

_MIN_START_RATE: Final = 10.0
"""Messages a second a ramp begins with at least."""

_MAX_DOUBLINGS: Final = 40.0


class SlowStart:
    """A passing rate for a channel without one: begun by a closed gate, ended when nobody waits any more."""

    __slots__ = ("_resume_at", "_start")

    def __init__(self) -> None:
        self._start: float | None = None
        self._resume_at = -math.inf

    @property
    def active(self) -> bool:
        """Whether a ramp is under way."""
        return self._start is not None

    def begin(self, resume_at: float, per_second: float) -> float:
        """Begin at what was accepted a second before the gate closed (or go on, with another opening)."""
        self._resume_at = resume_at
        if self._start is None:
            self._start = max(_MIN_START_RATE, per_second)
        return self._start

    def end(self) -> None:
        """Be unlimited again."""
        self._start = None

    def rate(self, now: float) -> float | None:
        """Return the rate at `now`, in messages a second; None without a ramp."""
        if self._start is None:
            return None
        return self._start * math.pow(2.0, min(max(0.0, now - self._resume_at), _MAX_DOUBLINGS))

    def can_end(self, now: float) -> bool:
        """Tell whether the gate has been open for a second, so that with nobody waiting the ramp may end."""
        return now >= self._resume_at + 1.0

    def seconds_for(self, weight: float, now: float) -> float:
        """Return how long so much weight takes to leave once the gate is open: the rate's integral, inverted."""
        rate = self.rate(max(now, self._resume_at))
        return 0.0 if rate is None else math.log2(1.0 + weight * math.log(2.0) / rate)
