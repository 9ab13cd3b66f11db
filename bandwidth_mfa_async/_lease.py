"""The holder's view of a lease: until when its own clocks allow it to send."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._clock import Clock

# The share of a lease that stays unused: for differences between clocks and for the time from the check to the wire.
_MARGIN = 0.1


class Lease:
    """The right to send what a chunk or a single code contains.

    Redis decides who holds a lease and is asked before every attempt. This class checks locally whether that answer is
    still valid. The time counts from before the question was sent, on the monotonic clock and on one that
    also counts while the machine is suspended. The wall clock does not matter: it may be set at any time.

    Args:
        seconds: the duration of the lease from each renewal.
        clock: the time source.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.fencing_token: str = secrets.token_hex(8)
        self.seconds = seconds
        self.lost = False
        self._clock = clock
        self._valid_until = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        """Return the time on both clocks. Call it before Redis is asked, and pass it to `renewed_at` afterwards."""
        return self._clock.monotonic(), self._clock.boottime()

    def renewed_at(self, now: tuple[float, float]) -> None:
        """Record that Redis granted or renewed the lease.

        Args:
            now: the time before the question was sent.
        """
        usable = self.seconds * (1 - _MARGIN)
        self._valid_until = (now[0] + usable, now[1] + usable)

    @property
    def is_valid(self) -> bool:
        """Whether an attempt may be written now."""
        monotonic, boottime = self._valid_until
        return not self.lost and self._clock.monotonic() < monotonic and self._clock.boottime() < boottime
