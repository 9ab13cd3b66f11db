"""The counts that a process has not yet reported to the shared state."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._grant import Report


class WriteKind(enum.IntEnum):
    """What is reported about a write, as the script knows it."""

    UNRESERVED = 0
    RESERVED = 1
    GIVEN_BACK = 2


class PendingReport:
    """Counts since the last exchange, and the deadline for reporting them."""

    __slots__ = (
        "_accepted",
        "_accepted_before",
        "_rejected",
        "_rejected_epoch",
        "due",
        "retry_after_until",
        "returned",
        "unused",
        "written",
    )

    def __init__(self) -> None:
        self.unused = 0
        """Permits to return."""
        self.written: list[tuple[float, int, WriteKind]] = []
        """Texts that were written, and reservations that are given back: the time, the weight, and the kind."""
        self.returned = False
        """Whether an outage has ended since the last report."""
        self._clear()

    def _clear(self) -> None:
        self._accepted = self._accepted_before = self._rejected = 0
        self._rejected_epoch = -1
        self.retry_after_until = -math.inf
        """End of the latest Retry-After, in the clock's seconds."""
        self.due = math.inf
        """Deadline for the next report; infinity while there is nothing to report."""

    def add_accepted(self, weight: int, *, current: bool) -> None:
        """Count an accepted message of the current epoch or an earlier one."""
        if current:
            self._accepted += weight
        else:
            self._accepted_before += weight

    def add_rejected(self, epoch: int) -> None:
        """Count a rejected message. Only the latest epoch counts; earlier ones have already caused a cut."""
        if epoch > self._rejected_epoch:
            self._rejected, self._rejected_epoch = 0, epoch
        if epoch == self._rejected_epoch >= 0:
            self._rejected += 1

    def pause(self, until: float) -> None:
        """Record a Retry-After."""
        self.retry_after_until = max(self.retry_after_until, until)

    def has_rejections(self, now: float) -> bool:
        """Return whether a message was rejected since the last report."""
        return self._rejected > 0 or self.retry_after_until > now

    def epoch_changed(self) -> None:
        """Attribute the accepted messages so far to earlier epochs."""
        self._accepted_before, self._accepted = self._accepted_before + self._accepted, 0

    def drain_into(self, report: Report, now: float) -> None:
        """Move all counts into a report."""
        report.accepted, report.accepted_before = self._accepted, self._accepted_before
        report.rejected, report.rejected_epoch = self._rejected, self._rejected_epoch
        report.retry_after = max(0.0, self.retry_after_until - now)
        report.unused, self.unused = self.unused, 0
        report.written = ",".join(f"{max(0.0, now - at):.6f}:{weight}:{kind:d}" for at, weight, kind in self.written)
        self.written.clear()
        self._clear()

    def restore_rejections(self, report: Report) -> None:
        """Restore the rejections of a report that failed. Accepted counts are dropped, because it may have arrived."""
        if report.rejected and report.rejected_epoch >= self._rejected_epoch:
            newer = self._rejected if report.rejected_epoch == self._rejected_epoch else 0
            self._rejected, self._rejected_epoch = report.rejected + newer, report.rejected_epoch
