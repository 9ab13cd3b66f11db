"""Tells refusals that no rate would avoid from those of a limit, by what got through between them. No I/O, no clock."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

# So many of the last refusals that ended an epoch came while a measured limit was being held: a real one is kept then.
_ENDINGS: Final = 6
_ENDINGS_IN_HOLD: Final = 5
# A limit that has fallen is approached: next to nothing gets through, then more and more from refusal to refusal, and
# what got through before it fell was far more. Chance is even: the second half lets through no more than so many times
# what the first does, and the other way round.
_MIN_ACCEPTED: Final = 1.5
_GROWTH: Final = 3.0
_DECLINE: Final = 4.0
# Nor does it let through more and more so many times in a row, but now and then.
_APPROACH: Final = 4
# Nor, at the last refusal, so much less than on average, as where a limit has just fallen; nor once so many times what
# it does on average otherwise.
_LAST: Final = 0.2
_ONCE: Final = 8.0
# Chance scatters: where what gets through between refusals differs by less than this share of its mean, there is a
# window that is used up again and again.
_SCATTER: Final = 0.45
# Over so many of the latest refusals the share of noise is taken.
_GAPS: Final = 32
# But no more than so many times what it was found to be, from a few refusals at first, then from those of the trial
# too: noise does not grow with the rate, a limit's refusals do.
_DRIFT_ON_TRIAL: Final = 1.6
_DRIFT: Final = 1.2
# Refusals beyond what three times the odds of noise would bring that mean a limit; more where there is much noise,
# which has longer rows of them by chance, and among which a few more do not matter.
_SURPRISE: Final = 4.0
_SURPRISE_BY_SHARE: Final = 40.0
# Until it has explained so many refusals it is on trial: the sending goes on at several times the limit that was being
# held, so that were it one most would be refused, and fewer surprises refute it. What is less than a real limit would
# refuse there is none.
_TRIAL: Final = 8
_SURPRISE_ON_TRIAL: Final = 2.0
_SURPRISE_ON_TRIAL_BY_SHARE: Final = 16.0
_TOLERATED_ON_TRIAL: Final = 0.15
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
        "_after_cut",
        "_distance",
        "_doubtful",
        "_endings",
        "_gaps",
        "_most",
        "_surprise",
        "_tolerated",
        "_trial",
        "share",
    )

    def __init__(self) -> None:
        self.share = 0.0
        """The share of refusals that are taken for noise; 0 while none is known."""
        # How the last epochs ended: whether while a limit was held, and after how many acceptances.
        self._endings: deque[tuple[bool, int]] = deque(maxlen=_ENDINGS)
        # What was accepted before each of the latest refusals, and before those of which it is not clear yet.
        self._gaps: deque[int] = deque(maxlen=_GAPS)
        self._doubtful: list[int] = []
        self._distance = 0
        self._surprise = 0.0
        self._tolerated = 0.0
        self._trial = 0
        self._after_cut = False
        self._most = 1.0

    @property
    def on_trial(self) -> bool:
        """Whether it was found lately, and may yet turn out to be a limit."""
        return self._trial > 0

    def accepted(self, weight: int) -> None:
        """Learn that a message was taken."""
        if not self.share:
            return
        self._distance += weight
        self._surprise -= self._tolerated * weight
        if self._surprise <= 0.0:
            self._surprise = 0.0
            if self._doubtful:
                self._explained()
        if self._distance * self.share > (_SILENCE_AFTER_CUT if self._after_cut else _SILENCE):
            self._forget()

    def explains(self) -> bool:
        """Learn of a refusal; tell whether it may well be noise."""
        if not self.share:
            return False
        self._doubtful.append(self._distance)
        self._distance = 0
        self._surprise += 1.0 - self._tolerated
        self._after_cut = False
        most = _SURPRISE + _SURPRISE_BY_SHARE * self.share
        if self._trial:
            most = _SURPRISE_ON_TRIAL + _SURPRISE_ON_TRIAL_BY_SHARE * self.share
        if self._surprise <= most:
            return True
        # A limit's: it teaches nothing of the noise, unless that there is none.
        self._after_cut = True
        if self._trial:
            self._forget()
        self._surprise = 0.0
        self._doubtful.clear()
        return False

    def found(self, *, in_hold: bool, accepted: int) -> bool:
        """Learn how an epoch ended that noise did not explain; tell whether it does, now that this is known.

        Args:
            in_hold: whether a measured limit was being held.
            accepted: how many messages got through since the last cut.
        """
        endings = self._endings
        endings.append((in_hold, accepted))
        counts = [count for _, count in endings]
        measured = [count for held, count in endings if held]
        if not in_hold or len(counts) < _ENDINGS or len(measured) < _ENDINGS_IN_HOLD or not _by_chance(counts):
            return False
        # What got through before the first of them was sent at a limit that may have been right until then.
        del measured[0]
        mean = sum(measured) / len(measured)
        scatter = math.sqrt(sum((count - mean) ** 2 for count in measured) / len(measured))
        if mean < _MIN_ACCEPTED or scatter < _SCATTER * mean:
            return False
        endings.clear()
        self._distance, self._surprise, self._trial, self._after_cut = 0, 0.0, _TRIAL, False
        self._most = 1.0
        self._take(measured)
        self._most = _DRIFT_ON_TRIAL * self.share
        return True

    def _explained(self) -> None:
        """Take the refusals of which it was not clear yet for noise."""
        on_trial = self._trial > 0
        self._trial = max(0, self._trial - len(self._doubtful))
        self._take(self._doubtful)
        self._doubtful.clear()
        if on_trial and not self._trial:
            self._most = _DRIFT * self.share

    def _forget(self) -> None:
        self.share, self._trial = 0.0, 0
        self._gaps.clear()
        self._doubtful.clear()

    def _take(self, gaps: list[int]) -> None:
        self._gaps.extend(gaps)
        self.share = min(len(self._gaps) / (len(self._gaps) + sum(self._gaps)), self._most)
        self._tolerated = 3.0 * self.share / (1.0 + 2.0 * self.share)
        if self._trial:
            self._tolerated = max(self._tolerated, _TOLERATED_ON_TRIAL)


def _by_chance(counts: list[int]) -> bool:
    """Tell whether what got through from refusal to refusal is not that of a limit which is found, or has fallen."""
    half, every, most = len(counts) // 2, sum(counts), max(counts)
    earlier, later = sum(counts[:half]), sum(counts[half:])
    even = later <= _GROWTH * earlier and earlier <= _DECLINE * later
    rows = (counts[start : start + _APPROACH] for start in range(len(counts) - _APPROACH + 1))
    return (
        even
        and counts[-1] >= _LAST * every / len(counts)
        and most <= _ONCE * (every - most) / (len(counts) - 1)
        and not any(row == sorted(row) for row in rows)
    )
