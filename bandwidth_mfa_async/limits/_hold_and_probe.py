"""Hold and probe: finds an unknown rate limit from 429 answers and stays just below it.

After a rejection the estimated limit is held for at least a hundred messages, so that at most one message in a hundred
is rejected. Then the rate climbs, slowly at first and faster the longer nothing is rejected.

Rejections that keep coming although each estimate is held do not depend on the rate: see `RandomRejectionFilter`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from attrs import frozen

from ._random_rejections import RandomRejectionFilter
from ._sliding_window import SlidingWindowCounter

# 2**40 times any estimate is practically unlimited; a larger exponent could overflow.
_MAX_DOUBLINGS: Final = 40.0


@frozen(kw_only=True)
class Tuning:
    """The numbers of the policy, measured best against five kinds of server.

    Durations are seconds, rates are messages per second.

    Args:
        hold_messages: how many messages the estimate is held for.
        hold_min: the shortest hold.
        hold_max: the longest hold: at a tiny rate a hundred messages take hours.
        climb_messages: after how many messages the rate has doubled for the first time.
        climb_min: the shortest time for that.
        climb_max: the longest time for that.
        beta: the start of the hold, as a share of the estimate.
        climb_power: the curvature of the climb. 3.5 is flat near the limit and steep far above it, so it causes few
            rejections and finds a limit raised sixfold within 8 s.
        leap: the multiple of the estimate to continue at once rejections are classified as random. A real limit would
            reject most messages there.
        surge: the multiple of the estimate above which a rejection is attributed to a new, higher limit.
        pause: the pause after a rejection.
        pause_max: the longest pause while the service rejects everything.
        first_rate: the initial rate when the first rejection comes before any acceptance.
        min_rate: the lowest rate.
        window_messages: how many messages an estimate spans at low rates; at high rates it spans one second.
        drop_threshold: the limit has fallen when less than this share of the streak's rate was accepted in its last
            second. Not used at low rates, where a second is too short to measure.
    """

    hold_messages: float = 100.0
    hold_min: float = 3.8
    hold_max: float = 100.0
    climb_messages: float = 20.0
    climb_min: float = 2.6
    climb_max: float = 20.0
    beta: float = 0.97
    climb_power: float = 3.5
    leap: float = 2.5
    surge: float = 1.6
    pause: float = 0.08
    pause_max: float = 8.0
    first_rate: float = 10.0
    min_rate: float = 0.05
    window_messages: float = 20.0
    drop_threshold: float = 0.75


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


class HoldAndProbe:
    """The state machine: it receives grants, acceptances and rejections and returns the rate.

    An epoch is the time between two cuts. A rejection of a message sent in an earlier epoch belongs to an episode that
    has already caused a cut, and changes nothing.

    Args:
        ceiling: a configured limit that is never exceeded, in messages per second; None for none.
        tuning: the numbers of the policy.
    """

    def __init__(self, ceiling: float | None = None, tuning: Tuning | None = None) -> None:
        self._tuning = Tuning() if tuning is None else tuning
        self._ceiling = math.inf if ceiling is None else ceiling
        self._estimate = self._ceiling
        self._rate: float | None = ceiling
        self._seconds_at_limit = 0.0  # seconds of sending at the limit since the last cut
        self._window = SlidingWindowCounter(self._window_length())
        # Time of each rejection of the current streak, and the total accepted until then.
        self._streak: deque[tuple[float, int]] = deque(maxlen=16)
        self._accepted = 0
        self._accepted_since_cut = 0
        self._resumed_at = 0.0
        self._empty_epochs = 0
        self._filter = RandomRejectionFilter()
        # Accepted messages of the first burst, sent before any limit was known, and the start of the burst.
        self._burst_accepted = 0
        self._burst_start = 0.0
        self.epoch = 0
        """How many times the rate was cut."""

    def __repr__(self) -> str:
        rate = "unlimited" if self._rate is None else f"{self._rate:.4g}/s"
        share = self.random_rejection_share
        known = f", random_rejections={share:.1%}" if share else ""
        return f"HoldAndProbe({self.state}, rate={rate}, estimate={self._estimate:.4g}/s, epoch={self.epoch}{known})"

    @property
    def state(self) -> str:
        """The current state.

        ``"unlimited"`` (except for the ceiling) before the first rejection, ``"half_open"``, ``"holding"`` or
        ``"probing"``.
        """
        if not self.epoch:
            return "unlimited"
        if self._empty_epochs:
            return "half_open"
        return "holding" if self._seconds_at_limit <= self._hold_seconds() else "probing"

    @property
    def random_rejection_share(self) -> float:
        """The share of messages that is rejected at any rate; 0 while none is known."""
        return self._filter.share

    @property
    def half_open(self) -> bool:
        """Whether everything was rejected lately, so that one message goes first and the others wait for its answer."""
        return self._empty_epochs > 0

    def rate(self) -> float | None:
        """Return the rate in messages per second; None while unlimited."""
        return self._rate

    def on_grant(self, weight: int) -> float | None:
        """Record a message that had to wait for the rate; return the rate to continue with.

        Messages that did not wait are not recorded: a rate that is not reached is not probed.
        """
        if self.epoch and self._rate is not None:
            self._seconds_at_limit += weight / self._rate
            self._update_rate()
        return self._rate

    def on_accept(self, now: float, weight: int, epoch: int) -> None:
        """Record that the service accepted a message sent in `epoch`."""
        if epoch == self.epoch and not self._accepted_since_cut:
            # The first message after the pause is accepted only now. Counting from the end of the pause would give a
            # low rate.
            self._window.clear(now)
        self._window.add(now, weight)
        self._accepted += weight
        if self.epoch == 1 and epoch == 0:
            self._raise_estimate_from_burst(now, weight)
        if epoch == self.epoch:
            self._accepted_since_cut += weight
            self._empty_epochs = 0
        self._filter.accepted(weight)

    def on_429(self, now: float, epoch: int, retry_after: float | None = None) -> float:
        """Record that the service rejected a message sent in `epoch`; return the pause in seconds.

        Args:
            now: the time.
            epoch: the value of `self.epoch` when the message was sent.
            retry_after: the pause that the service requested, in seconds; the returned pause is never shorter.
        """
        requested_pause = retry_after or 0.0
        if epoch != self.epoch:
            self._resumed_at = max(self._resumed_at, now + requested_pause)
            return requested_pause
        on_probation = self._filter.on_probation
        if self._filter.absorbs_rejection():
            return requested_pause
        if on_probation:
            # It was a limit after all: use the estimate held before the leap, or the rate accepted since if that is
            # higher.
            self._empty_epochs = 0
            self._set_estimate(max(self._estimate, self._window.per_second(now)))
            self._begin_streak(now)
            return self._begin_epoch(now, requested_pause)
        if self.epoch and not self._accepted_since_cut:
            # No message was accepted since the last cut: the service's window is used up. That says nothing about the
            # rate, and cutting here would drive it to the minimum.
            self._empty_epochs += 1
            return self._begin_epoch(now, requested_pause)
        self._empty_epochs = 0
        in_hold = self.epoch > 0 and self._seconds_at_limit <= self._hold_seconds()
        if self._filter.on_epoch_end(in_hold=in_hold, accepted=self._accepted_since_cut):
            # The last estimate is not a limit: leap above it.
            doublings = math.log2(self._tuning.leap)
            self._seconds_at_limit = self._hold_seconds() + self._climb_seconds() * doublings ** (
                1.0 / self._tuning.climb_power
            )
            self._update_rate()
            return requested_pause
        self._cut(now)
        return self._begin_epoch(now, requested_pause)

    def _begin_epoch(self, now: float, requested_pause: float) -> float:
        """Reset the counts after a rejection; return the pause in seconds."""
        self.epoch += 1
        self._accepted_since_cut = 0
        pause = max(
            requested_pause, min(self._tuning.pause * 2.0 ** min(self._empty_epochs, 30), self._tuning.pause_max)
        )
        self._resumed_at = now + pause
        # Exclude the pause from the estimate: a quota that is renewed while nothing is sent would look too small.
        self._window.clear(self._resumed_at)
        return pause

    def _raise_estimate_from_burst(self, now: float, weight: int) -> None:
        """Raise the first estimate by messages that were in flight then and have been accepted since."""
        self._burst_accepted += weight
        measured = self._burst_accepted / max(now - self._burst_start, 1.0)
        if self._rate is not None and measured > self._estimate:
            self._estimate = min(measured, self._ceiling)
            self._window.length = self._window_length()
            self._update_rate()

    def _cut(self, now: float) -> None:
        tuning = self._tuning
        if self._rate is None:
            estimate = self._window.per_second(now) or tuning.first_rate
            self._estimate = min(estimate, self._ceiling)
            self._burst_accepted, self._burst_start = self._window.total, self._window.started_at
            self._begin_streak(now)
        elif self.epoch and now - self._resumed_at < max(1.0, tuning.window_messages / self._rate):
            # Rejected again soon: the service's bucket was empty at both ends, so the messages accepted between them
            # give its exact rate.
            self._estimate = _clamp(self._measure_streak(now), 0.7 * self._rate, 0.95 * self._rate)
        else:
            estimate = self._window.per_second(now)
            if self._rate > tuning.surge * self._estimate:
                # Far up the climb the average of the window lags behind.
                estimate = max(estimate, 0.8 * self._rate)
            self._estimate = _clamp(estimate, 0.5 * self._rate, self._rate)
            self._begin_streak(now)
        self._set_estimate(self._estimate)

    def _begin_streak(self, now: float) -> None:
        self._streak.clear()
        self._streak.append((now, self._accepted))

    def _measure_streak(self, now: float) -> float:
        """Return the messages accepted per second since the first rejection of the streak.

        The longer the streak, the more exact the result. A clearly lower recent rate means that the limit has fallen.
        The messages accepted before would then hide the new limit for many more rejections, so the streak restarts.
        """
        streak = self._streak
        measured = self._accept_rate_since(now, streak[0])
        if self._window.length <= 1.0:
            recent = max((rejection for rejection in streak if rejection[0] <= now - 1.0), default=streak[0])
            lately = self._accept_rate_since(now, recent)
            if lately < self._tuning.drop_threshold * measured:
                streak.clear()
                streak.append(recent)
                measured = lately
        # Keep the first rejection and the latest ones.
        if len(streak) == (streak.maxlen or 0):
            del streak[1]
        streak.append((now, self._accepted))
        return measured

    def _accept_rate_since(self, now: float, rejection: tuple[float, int]) -> float:
        return (self._accepted - rejection[1]) / max(now - rejection[0], 1e-9)

    def _set_estimate(self, limit: float) -> None:
        """Hold just below this limit from now on."""
        self._estimate = _clamp(limit, self._tuning.min_rate, self._ceiling)
        self._seconds_at_limit = 0.0
        self._window.length = self._window_length()
        self._update_rate()

    def _window_length(self) -> float:
        return max(1.0, self._tuning.window_messages / self._estimate)

    def _hold_seconds(self) -> float:
        return _clamp(self._tuning.hold_messages / self._estimate, self._tuning.hold_min, self._tuning.hold_max)

    def _climb_seconds(self) -> float:
        tuning = self._tuning
        return _clamp(tuning.climb_messages / self._estimate, tuning.climb_min, tuning.climb_max)

    def _update_rate(self) -> None:
        tuning, estimate = self._tuning, self._estimate
        hold = self._hold_seconds()
        if self._seconds_at_limit <= hold:
            rate = estimate * (tuning.beta + (1.0 - tuning.beta) * self._seconds_at_limit / hold)
        else:
            doublings = ((self._seconds_at_limit - hold) / self._climb_seconds()) ** tuning.climb_power
            rate = estimate * 2.0 ** min(doublings, _MAX_DOUBLINGS)
        self._rate = _clamp(rate, min(tuning.min_rate, self._ceiling), self._ceiling)
