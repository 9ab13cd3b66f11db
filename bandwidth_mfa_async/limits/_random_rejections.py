"""Distinguishes random rejections, which no rate would avoid, from those of a rate limit."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

# Rejections are classified as random when at least this many of the last epochs ended while an estimated limit was
# being held. A real limit does not reject then.
_MAX_EPOCH_ENDS: Final = 6
_MIN_ENDS_IN_HOLD: Final = 5
# When a limit has fallen, almost nothing is accepted at first, then more from rejection to rejection; before it fell,
# far more was accepted. Random rejections are even: the mean count is at least _MIN_ACCEPTED, the second half of the
# counts is at most _MAX_GROWTH times the first half, and the first half at most _MAX_DECLINE times the second.
_MIN_ACCEPTED: Final = 1.5
_MAX_GROWTH: Final = 3.0
_MAX_DECLINE: Final = 4.0
# Random counts rarely rise this many times in a row.
_RISING_RUN: Final = 4
# The last random count is not below this share of the mean, as after a limit has just fallen. No random count is above
# this multiple of the mean of the others.
_MIN_LAST_SHARE: Final = 0.2
_MAX_OUTLIER: Final = 8.0
# Random counts scatter. A standard deviation below this share of the mean indicates a window that is used up again and
# again.
_MIN_SCATTER: Final = 0.45
# The share is computed from this many of the latest rejections.
_MAX_GAPS: Final = 32
# The share never exceeds this multiple of the first one, found from a few rejections, and later of the one at the end
# of the probation. Random rejections do not grow with the rate; those of a limit do.
_MAX_DRIFT_ON_PROBATION: Final = 1.6
_MAX_DRIFT: Final = 1.2
# This many rejections more than three times the odds would bring indicate a limit. A larger share allows more: it has
# longer random runs, and a few more do not matter.
_MAX_EXCESS: Final = 4.0
_MAX_EXCESS_BY_SHARE: Final = 40.0
# The probation lasts this many rejections. Meanwhile messages leave at several times the estimate that was held. A real
# limit would reject most of them, so a smaller excess refutes the classification, and a share below what a limit would
# reject is tolerated.
_PROBATION: Final = 8
_MAX_EXCESS_ON_PROBATION: Final = 2.0
_MAX_EXCESS_ON_PROBATION_BY_SHARE: Final = 16.0
_MIN_TOLERATED_ON_PROBATION: Final = 0.15
# Without a rejection for this multiple of the usual distance, random rejections have ended. After a cut it is lower,
# because holding a real limit looks the same.
_SILENCE: Final = 16.0
_SILENCE_AFTER_CUT: Final = 8.0


class RandomRejectionFilter:
    """Estimates the share of messages that is rejected at any rate; 0 until it is known.

    Random rejections come from a broken gateway, or from a test that injects faults. Slowing down for them would end at
    a standstill, because they come at every rate. They are recognised because they keep coming while an estimated limit
    is held. From then on only rejections in excess of their share count as those of a limit.
    """

    __slots__ = (
        "_accepted_since_rejection",
        "_after_cut",
        "_epoch_ends",
        "_excess",
        "_gaps",
        "_max_share",
        "_probation",
        "_tolerated_share",
        "_undecided",
        "share",
    )

    def __init__(self) -> None:
        self.share = 0.0
        """The share of messages that is rejected at random; 0 while none is known."""
        # The last epochs: whether each ended while a limit was held, and its accepted messages.
        self._epoch_ends: deque[tuple[bool, int]] = deque(maxlen=_MAX_EPOCH_ENDS)
        # Messages accepted before each of the latest random rejections, and before each undecided one.
        self._gaps: deque[int] = deque(maxlen=_MAX_GAPS)
        self._undecided: list[int] = []
        self._accepted_since_rejection = 0
        self._excess = 0.0
        self._tolerated_share = 0.0
        self._probation = 0
        self._after_cut = False
        self._max_share = 1.0

    @property
    def on_probation(self) -> bool:
        """Whether the rejections were classified as random lately, and may still turn out to be those of a limit."""
        return self._probation > 0

    def accepted(self, weight: int) -> None:
        """Record accepted messages."""
        if not self.share:
            return
        self._accepted_since_rejection += weight
        self._excess -= self._tolerated_share * weight
        if self._excess <= 0.0:
            self._excess = 0.0
            if self._undecided:
                self._absorb_undecided()
        if self._accepted_since_rejection * self.share > (_SILENCE_AFTER_CUT if self._after_cut else _SILENCE):
            self._reset()

    def absorbs_rejection(self) -> bool:
        """Record a rejection; return whether it is probably random."""
        if not self.share:
            return False
        self._undecided.append(self._accepted_since_rejection)
        self._accepted_since_rejection = 0
        self._excess += 1.0 - self._tolerated_share
        self._after_cut = False
        max_excess = _MAX_EXCESS + _MAX_EXCESS_BY_SHARE * self.share
        if self._probation:
            max_excess = _MAX_EXCESS_ON_PROBATION + _MAX_EXCESS_ON_PROBATION_BY_SHARE * self.share
        if self._excess <= max_excess:
            return True
        # The rejection of a limit says nothing about the share, except during the probation: then the share is 0.
        self._after_cut = True
        if self._probation:
            self._reset()
        self._excess = 0.0
        self._undecided.clear()
        return False

    def on_epoch_end(self, *, in_hold: bool, accepted: int) -> bool:
        """Record the end of an epoch by a rejection; return whether such rejections are now classified as random.

        Args:
            in_hold: whether an estimated limit was being held.
            accepted: messages accepted since the last cut.
        """
        epoch_ends = self._epoch_ends
        epoch_ends.append((in_hold, accepted))
        counts = [count for _, count in epoch_ends]
        measured = [count for held, count in epoch_ends if held]
        if (
            not in_hold
            or len(counts) < _MAX_EPOCH_ENDS
            or len(measured) < _MIN_ENDS_IN_HOLD
            or not _looks_random(counts)
        ):
            return False
        # The first count was sent at an estimate that may still have been correct.
        del measured[0]
        mean = sum(measured) / len(measured)
        scatter = math.sqrt(sum((count - mean) ** 2 for count in measured) / len(measured))
        if mean < _MIN_ACCEPTED or scatter < _MIN_SCATTER * mean:
            return False
        epoch_ends.clear()
        self._accepted_since_rejection, self._excess, self._probation, self._after_cut = 0, 0.0, _PROBATION, False
        self._max_share = 1.0
        self._add_gaps(measured)
        self._max_share = _MAX_DRIFT_ON_PROBATION * self.share
        return True

    def _absorb_undecided(self) -> None:
        """Classify the undecided rejections as random."""
        on_probation = self._probation > 0
        self._probation = max(0, self._probation - len(self._undecided))
        self._add_gaps(self._undecided)
        self._undecided.clear()
        if on_probation and not self._probation:
            self._max_share = _MAX_DRIFT * self.share

    def _reset(self) -> None:
        self.share, self._probation = 0.0, 0
        self._gaps.clear()
        self._undecided.clear()

    def _add_gaps(self, gaps: list[int]) -> None:
        self._gaps.extend(gaps)
        self.share = min(len(self._gaps) / (len(self._gaps) + sum(self._gaps)), self._max_share)
        self._tolerated_share = 3.0 * self.share / (1.0 + 2.0 * self.share)
        if self._probation:
            self._tolerated_share = max(self._tolerated_share, _MIN_TOLERATED_ON_PROBATION)


def _looks_random(counts: list[int]) -> bool:
    """Return whether the accepted counts do not look like those of a limit that is being found, or has fallen."""
    half, total, highest = len(counts) // 2, sum(counts), max(counts)
    earlier, later = sum(counts[:half]), sum(counts[half:])
    even = later <= _MAX_GROWTH * earlier and earlier <= _MAX_DECLINE * later
    runs = (counts[start : start + _RISING_RUN] for start in range(len(counts) - _RISING_RUN + 1))
    return (
        even
        and counts[-1] >= _MIN_LAST_SHARE * total / len(counts)
        and highest <= _MAX_OUTLIER * (total - highest) / (len(counts) - 1)
        and not any(run == sorted(run) for run in runs)
    )
