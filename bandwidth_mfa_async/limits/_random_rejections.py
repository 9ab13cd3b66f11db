"""Tells refusals that no rate would avoid from those of a limit, by what got through between them. No I/O, no clock."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

# So many of the last refusals that ended an epoch came while a measured limit was being held: a real one is kept then.
_MAX_EPOCH_ENDS: Final = 6
_MIN_ENDS_IN_HOLD: Final = 5
# A limit that has fallen is approached: next to nothing gets through, then more and more from refusal to refusal, and
# what got through before it fell was far more. Chance is even: the second half lets through no more than so many times
# what the first does, and the other way round.
_MIN_ACCEPTED: Final = 1.5
_MAX_GROWTH: Final = 3.0
_MAX_DECLINE: Final = 4.0
# Nor does it let through more and more so many times in a row, but now and then.
_RISING_RUN: Final = 4
# Nor, at the last refusal, so much less than on average, as where a limit has just fallen; nor once so many times what
# it does on average otherwise.
_MIN_LAST_SHARE: Final = 0.2
_MAX_OUTLIER: Final = 8.0
# Chance scatters: where what gets through between refusals differs by less than this share of its mean, there is a
# window that is used up again and again.
_MIN_SCATTER: Final = 0.45
# Over so many of the latest refusals the share of noise is taken.
_MAX_GAPS: Final = 32
# But no more than so many times what it was on_epoch_end to be, from a few refusals at first, then from those of the trial
# too: noise does not grow with the rate, a limit's refusals do.
_MAX_DRIFT_ON_PROBATION: Final = 1.6
_MAX_DRIFT: Final = 1.2
# Refusals beyond what three times the odds of noise would bring that mean a limit; more where there is much noise,
# which has longer rows of them by chance, and among which a few more do not matter.
_MAX_EXCESS: Final = 4.0
_MAX_EXCESS_BY_SHARE: Final = 40.0
# Until it has explained so many refusals it is on trial: the sending goes on at several times the limit that was being
# held, so that were it one most would be refused, and fewer surprises refute it. What is less than a real limit would
# refuse there is none.
_PROBATION: Final = 8
_MAX_EXCESS_ON_PROBATION: Final = 2.0
_MAX_EXCESS_ON_PROBATION_BY_SHARE: Final = 16.0
_MIN_TOLERATED_ON_PROBATION: Final = 0.15
# After so many times the usual distance without one the noise has gone; sooner where a limit was measured just before,
# since that is what keeping a real one looks like.
_SILENCE: Final = 16.0
_SILENCE_AFTER_CUT: Final = 8.0


class RandomRejectionFilter:
    """The share of messages that is refused at any rate, once it is known; until then each refusal is news.

    A broken gateway, or a test that injects refusals by chance: slowing down for those would end at a standstill, since
    the next one comes however slow the sending. They betray themselves by coming while a measured limit is being held,
    again and again. From then on only what exceeds their share counts as a limit's.
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
        """The share of refusals that are taken for noise; 0 while none is known."""
        # How the last epochs ended: whether while a limit was held, and after how many acceptances.
        self._epoch_ends: deque[tuple[bool, int]] = deque(maxlen=_MAX_EPOCH_ENDS)
        # What was accepted before each of the latest refusals, and before those of which it is not clear yet.
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
        """Whether it was on_epoch_end lately, and may yet turn out to be a limit."""
        return self._probation > 0

    def accepted(self, weight: int) -> None:
        """Learn that a message was taken."""
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
        """Learn of a refusal; tell whether it may well be noise."""
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
        # A limit's: it teaches nothing of the noise, unless that there is none.
        self._after_cut = True
        if self._probation:
            self._reset()
        self._excess = 0.0
        self._undecided.clear()
        return False

    def on_epoch_end(self, *, in_hold: bool, accepted: int) -> bool:
        """Learn how an epoch ended that noise did not explain; tell whether it does, now that this is known.

        Args:
            in_hold: whether a measured limit was being held.
            accepted: how many messages got through since the last cut.
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
        # What got through before the first of them was sent at a limit that may have been right until then.
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
        """Take the refusals of which it was not clear yet for noise."""
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
    """Tell whether what got through from refusal to refusal is not that of a limit which is on_epoch_end, or has fallen."""
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
