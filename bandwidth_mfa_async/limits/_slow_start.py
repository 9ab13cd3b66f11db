"""Slow start: a rate that doubles every second after a pause, for a channel without a known rate."""

from __future__ import annotations

import math
from typing import Final

_MIN_START_RATE: Final = 10.0
"""The lowest rate to begin with, in messages per second."""

_MAX_DOUBLINGS: Final = 40.0


class SlowStart:
    """A temporary rate. It begins with a pause and ends when no caller waits any more."""

    __slots__ = ("_resume_at", "_start")

    def __init__(self) -> None:
        self._start: float | None = None
        self._resume_at = -math.inf

    @property
    def active(self) -> bool:
        """Whether a slow start is in progress."""
        return self._start is not None

    def begin(self, resume_at: float, per_second: float) -> float:
        """Begin at the rate accepted before the pause. If already active, only move the end of the pause."""
        self._resume_at = resume_at
        if self._start is None:
            self._start = max(_MIN_START_RATE, per_second)
        return self._start

    def end(self) -> None:
        """Return to unlimited."""
        self._start = None

    def rate(self, now: float) -> float | None:
        """Return the rate at `now` in messages per second; None while not active."""
        if self._start is None:
            return None
        return self._start * math.pow(2.0, min(max(0.0, now - self._resume_at), _MAX_DOUBLINGS))

    def can_end(self, now: float) -> bool:
        """Return whether the pause ended at least a second ago, so that the slow start may end when no caller waits."""
        return now >= self._resume_at + 1.0

    def seconds_for(self, weight: float, now: float) -> float:
        """Return the seconds after the pause that it takes to send this weight: the inverse integral of the rate."""
        rate = self.rate(max(now, self._resume_at))
        return 0.0 if rate is None else math.log2(1.0 + weight * math.log(2.0) / rate)
