"""What tests of code that uses this library need: time that moves when told to."""

from __future__ import annotations

from ._clock import Clock, ManualClock

__all__ = ["Clock", "ManualClock"]
