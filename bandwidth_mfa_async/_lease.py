"""A lease as its holder sees it: what it may still do on the strength of it, by clocks of its own. No I/O."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .errors import NotSentError

if TYPE_CHECKING:
    from ._clock import Clock

# Of a lease's time, so much is not used, for the clocks' differences and for the way of a request to the wire.
_MARGIN = 0.1


class Lease:
    """The right to send what a chunk or a single code holds.

    Redis says who holds a lease, and it is asked before every attempt; this says, without asking, whether the answer
    may still be believed. The time is counted from before the question, on two clocks, so that neither a process that
    was stopped nor a machine that was put to sleep believes in a lease that may have run out.

    Args:
        seconds: how long it lasts from each renewal.
        clock: where time comes from.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.fencing_token: str = secrets.token_hex(8)
        self.seconds = seconds
        self.lost = False
        self._clock = clock
        self._valid_until = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        """Return the time now, to be given to `granted` when Redis has said yes."""
        return self._clock.monotonic(), self._clock.time()

    def renewed_at(self, now: tuple[float, float]) -> None:
        """Note that Redis has given or renewed it.

        Args:
            now: when it was asked to.
        """
        usable = self.seconds * (1 - _MARGIN)
        self._valid_until = (now[0] + usable, now[1] + usable)

    @property
    def is_valid(self) -> bool:
        """Whether an attempt may be written now."""
        return (
            not self.lost
            and self._clock.monotonic() < self._valid_until[0]
            and self._clock.time() < self._valid_until[1]
        )

    def check(self) -> None:
        """Keep an attempt from being written on the strength of a lease that may have been lost.

        Raises:
            NotSentError: it may.
        """
        if not self.is_valid:
            raise NotSentError("the worker's lease ran out before the request was written", attempts=1)
