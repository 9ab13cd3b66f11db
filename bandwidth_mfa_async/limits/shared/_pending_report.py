"""What a process has still to report to the shared state. No I/O, no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._grant import Report


class PendingReport:
    """Counts between two exchanges, and by when they must be reported."""

    __slots__ = ("_accepted", "_accepted_before", "_bad", "_bad_epoch", "asked_until", "back", "due")

    def __init__(self) -> None:
        self.back = 0
        """Permits that were not used."""
        self._clear()

    def _clear(self) -> None:
        self._accepted = self._accepted_before = self._bad = 0
        self._bad_epoch = -1
        self.asked_until = -math.inf
        """Until when the service asked to be left alone, in the clock's seconds."""
        self.due = math.inf
        """When to report at the latest; infinity while there is nothing to report."""

    def accept(self, weight: int, *, current: bool) -> None:
        """Count an accepted message, of this epoch or an earlier one."""
        if current:
            self._accepted += weight
        else:
            self._accepted_before += weight

    def refuse(self, epoch: int) -> None:
        """Count a refused message; those of earlier epochs than the latest were already answered for."""
        if epoch > self._bad_epoch:
            self._bad, self._bad_epoch = 0, epoch
        if epoch == self._bad_epoch >= 0:
            self._bad += 1

    def pause(self, until: float) -> None:
        """Note a Retry-After."""
        self.asked_until = max(self.asked_until, until)

    def has_news(self, now: float) -> bool:
        """Tell whether something was refused since the last report."""
        return self._bad > 0 or self.asked_until > now

    def epoch_changed(self) -> None:
        """Count what was accepted until now to the epoch before."""
        self._accepted_before, self._accepted = self._accepted_before + self._accepted, 0

    def move_to(self, report: Report, now: float) -> None:
        """Write everything into a report and forget it."""
        report.accepted, report.accepted_before = self._accepted, self._accepted_before
        report.bad, report.bad_epoch = self._bad, self._bad_epoch
        report.retry_after = max(0.0, self.asked_until - now)
        report.back, self.back = self.back, 0
        self._clear()

    def keep_refusals(self, report: Report) -> None:
        """Take back the refusals of a report that did not arrive; counts are dropped, since it may have."""
        if report.bad and report.bad_epoch >= self._bad_epoch:
            newer = self._bad if report.bad_epoch == self._bad_epoch else 0
            self._bad, self._bad_epoch = report.bad + newer, report.bad_epoch
