"""What a process has still to report to the shared state. No I/O, no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._grant import Report


class PendingReport:
    """Counts between two exchanges, and by when they must be reported."""

    __slots__ = ("_accepted", "_accepted_before", "_rejected", "_rejected_epoch", "due", "retry_after_until", "unused")

    def __init__(self) -> None:
        self.unused = 0
        """Permits that were not used."""
        self._clear()

    def _clear(self) -> None:
        self._accepted = self._accepted_before = self._rejected = 0
        self._rejected_epoch = -1
        self.retry_after_until = -math.inf
        """Until when the service asked to be left alone, in the clock's seconds."""
        self.due = math.inf
        """When to report at the latest; infinity while there is nothing to report."""

    def add_accepted(self, weight: int, *, current: bool) -> None:
        """Count an accepted message, of this epoch or an earlier one."""
        if current:
            self._accepted += weight
        else:
            self._accepted_before += weight

    def add_rejected(self, epoch: int) -> None:
        """Count a refused message; those of earlier epochs than the latest were already answered for."""
        if epoch > self._rejected_epoch:
            self._rejected, self._rejected_epoch = 0, epoch
        if epoch == self._rejected_epoch >= 0:
            self._rejected += 1

    def pause(self, until: float) -> None:
        """Note a Retry-After."""
        self.retry_after_until = max(self.retry_after_until, until)

    def has_rejections(self, now: float) -> bool:
        """Tell whether something was refused since the last report."""
        return self._rejected > 0 or self.retry_after_until > now

    def epoch_changed(self) -> None:
        """Count what was accepted until now to the epoch before."""
        self._accepted_before, self._accepted = self._accepted_before + self._accepted, 0

    def drain_into(self, report: Report, now: float) -> None:
        """Write everything into a report and forget it."""
        report.accepted, report.accepted_before = self._accepted, self._accepted_before
        report.rejected, report.rejected_epoch = self._rejected, self._rejected_epoch
        report.retry_after = max(0.0, self.retry_after_until - now)
        report.unused, self.unused = self.unused, 0
        self._clear()

    def restore_rejections(self, report: Report) -> None:
        """Take unused the refusals of a report that did not arrive; counts are dropped, since it may have."""
        if report.rejected and report.rejected_epoch >= self._rejected_epoch:
            newer = self._rejected if report.rejected_epoch == self._rejected_epoch else 0
            self._rejected, self._rejected_epoch = report.rejected + newer, report.rejected_epoch
