"""Hold and probe: finds an unknown rate limit from 429 answers and stays just below it. No I/O, no clock.

After a refusal the measured limit is held for at least a hundred messages, so that one refusal is at most one in a
hundred; then the rate climbs, slowly at first and faster the longer nothing is refused.

Refusals that come again and again although each measured limit is kept have nothing to do with the rate: see `Noise`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from attrs import frozen

from ._random_rejections import RandomRejectionFilter
from ._sliding_window import SlidingWindowCounter

# 2**40 times any belief is no limit at all; a larger exponent could overflow.
_MAX_DOUBLINGS: Final = 40.0


@frozen(kw_only=True)
class Tuning:
    """The policy's numbers, as they were measured best against five kinds of server.

    Durations are seconds, rates are messages a second.

    Args:
        hold_messages: how many messages the believed limit is held for.
        hold_min: but at least so long,
        hold_max: and at most so long: at a tiny rate a hundred messages take hours.
        climb_messages: after how many messages the first doubling of the climb ends.
        climb_min: but not sooner,
        climb_max: and not later.
        beta: where the hold starts, as a share of the believed limit.
        climb_power: how sharply the climb bends upwards; 3.5 is flat near the limit and steep far above it, so
            that it refuses little and finds a limit raised sixfold within 8 s.
        leap: at how many times the believed limit to go on once refusals are taken for chance: were they a limit's,
            most messages would be refused there.
        surge: from how many times the believed limit on a refusal is taken to come from a new, higher limit.
        pause: how long sends stop after a refusal.
        pause_max: the longest such pause while the service goes on refusing everything.
        first_rate: where to begin when the first refusal comes before anything was accepted.
        least_rate: never slower than this.
        window_messages: how many messages an estimate spans at low rates; at high ones it is one second.
        fallen: how much less than since the first of a row of refusals must have been accepted in its last second to
            mean that the limit has fallen meanwhile. At rates with longer spans a second tells nothing.
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
    least_rate: float = 0.05
    window_messages: float = 20.0
    fallen: float = 0.75


def _clamp(value: float, least: float, most: float) -> float:
    return max(least, min(value, most))


class HoldAndProbe:
    """The state machine: told of grants, acceptances and refusals, it says at which rate to go on.

    An epoch is the time between two cuts. A refusal of something sent in an earlier epoch belongs to an episode that
    was already answered for, and changes nothing.

    Args:
        ceiling: a configured limit that is never exceeded, in messages a second; None for none.
        tuning: the policy's numbers.
    """

    def __init__(self, ceiling: float | None = None, tuning: Tuning | None = None) -> None:
        self._tuning = Tuning() if tuning is None else tuning
        self._ceiling = math.inf if ceiling is None else ceiling
        self._believed = self._ceiling
        self._rate: float | None = ceiling
        self._sent = 0.0  # seconds of sending at the limit since the last cut
        self._window = SlidingWindowCounter(self._window_length())
        # When each refusal of the present streak came, and what had been accepted until then.
        self._streak: deque[tuple[float, int]] = deque(maxlen=16)
        self._accepted = 0
        self._accepted_since_cut = 0
        self._resumed = 0.0
        self._closed = 0
        self._noise = RandomRejectionFilter()
        # What was accepted of the first burst, sent before any limit was known, and when it began.
        self._burst_accepted = 0
        self._burst_start = 0.0
        self.epoch = 0
        """How many times the rate was cut."""

    def __repr__(self) -> str:
        rate = "unlimited" if self._rate is None else f"{self._rate:.4g}/s"
        noise = f", noise={self.noise:.1%}" if self.noise else ""
        return f"HoldAndProbe({self.state}, rate={rate}, believed={self._believed:.4g}/s, epoch={self.epoch}{noise})"

    @property
    def state(self) -> str:
        """What it is doing, in one word.

        ``"trusting"`` before the first refusal, ``"closed"``, ``"holding"`` or ``"probing"``.
        """
        if not self.epoch:
            return "trusting"
        if self._closed:
            return "closed"
        return "holding" if self._sent <= self._hold() else "probing"

    @property
    def noise(self) -> float:
        """The share of messages that is refused at any rate; 0 while none is known."""
        return self._noise.share

    @property
    def half_open(self) -> bool:
        """Whether all was refused lately, so that one message should go first and the rest wait for its answer."""
        return self._closed > 0

    def rate(self) -> float | None:
        """Return the rate to send at, in messages a second; None while no limit is believed in."""
        return self._rate

    def on_grant(self, weight: int) -> float | None:
        """Learn that a message left which had to wait for the rate; return the rate to go on with.

        Messages that did not wait are not reported: a limit that nobody meets is not probed.
        """
        if self.epoch and self._rate is not None:
            self._sent += weight / self._rate
            self._update()
        return self._rate

    def on_accept(self, now: float, weight: int, epoch: int) -> None:
        """Learn that the service took a message that was sent in `epoch`."""
        if epoch == self.epoch and not self._accepted_since_cut:
            # What left first after the pause is accepted only now: measured from its end, the rate would look low.
            self._window.clear(now)
        self._window.add(now, weight)
        self._accepted += weight
        if self.epoch == 1 and epoch == 0:
            self._learn_from_burst(now, weight)
        if epoch == self.epoch:
            self._accepted_since_cut += weight
            self._closed = 0
        self._noise.accepted(weight)

    def on_429(self, now: float, epoch: int, retry_after: float | None = None) -> float:
        """Learn that the service refused a message that was sent in `epoch`; return how long to send nothing.

        Args:
            now: the time.
            epoch: what `self.epoch` was when the message left.
            retry_after: what the service asked for, in seconds; the pause is never shorter.
        """
        asked = retry_after or 0.0
        if epoch != self.epoch:
            self._resumed = max(self._resumed, now + asked)
            return asked
        on_trial = self._noise.on_trial
        if self._noise.explains():
            return asked
        if on_trial:
            # It was a limit after all: the one that was held before the leap, or what got through since.
            self._closed = 0
            self._believe(max(self._believed, self._window.per_second(now)))
            self._begin_streak(now)
            return self._begin_epoch(now, asked)
        if self.epoch and not self._accepted_since_cut:
            # Not one message got through since the last cut: the window is used up, and until it reopens that says
            # nothing about the rate. Cutting here would drive the rate to the floor.
            self._closed += 1
            return self._begin_epoch(now, asked)
        self._closed = 0
        in_hold = self.epoch > 0 and self._sent <= self._hold()
        if self._noise.found(in_hold=in_hold, accepted=self._accepted_since_cut):
            # The limit that was measured last is none: leave it behind.
            doublings = math.log2(self._tuning.leap)
            self._sent = self._hold() + self._climb() * doublings ** (1.0 / self._tuning.climb_power)
            self._update()
            return asked
        self._cut(now)
        return self._begin_epoch(now, asked)

    def _begin_epoch(self, now: float, asked: float) -> float:
        """Start counting anew after a refusal; return how long to send nothing."""
        self.epoch += 1
        self._accepted_since_cut = 0
        pause = max(asked, min(self._tuning.pause * 2.0 ** min(self._closed, 30), self._tuning.pause_max))
        self._resumed = now + pause
        # The pause belongs to no estimate: a quota that is renewed while nothing is sent would look too small.
        self._window.clear(self._resumed)
        return pause

    def _learn_from_burst(self, now: float, weight: int) -> None:
        """Raise the first estimate by what was under way when it was made and has been accepted since."""
        self._burst_accepted += weight
        measured = self._burst_accepted / max(now - self._burst_start, 1.0)
        if self._rate is not None and measured > self._believed:
            self._believed = min(measured, self._ceiling)
            self._window.length = self._window_length()
            self._update()

    def _cut(self, now: float) -> None:
        tuning = self._tuning
        if self._rate is None:
            estimate = self._window.per_second(now) or tuning.first_rate
            self._believed = min(estimate, self._ceiling)
            self._burst_accepted, self._burst_start = self._window.total, self._window.began
            self._begin_streak(now)
        elif self.epoch and now - self._resumed < max(1.0, tuning.window_messages / self._rate):
            # Refused again soon: the service's bucket was empty at both ends, so what it took between them is
            # exactly its rate.
            self._believed = _clamp(self._measured(now), 0.7 * self._rate, 0.95 * self._rate)
        else:
            estimate = self._window.per_second(now)
            if self._rate > tuning.surge * self._believed:
                # Far up the climb the window's average lags behind.
                estimate = max(estimate, 0.8 * self._rate)
            self._believed = _clamp(estimate, 0.5 * self._rate, self._rate)
            self._begin_streak(now)
        self._believe(self._believed)

    def _begin_streak(self, now: float) -> None:
        self._streak.clear()
        self._streak.append((now, self._accepted))

    def _measured(self, now: float) -> float:
        """Return what was accepted a second since the first refusal of the streak: the longer, the more exact.

        Where it was clearly less lately, the limit has fallen since then, and what the old one let through would hide
        the new one for many more refusals: the streak begins anew.
        """
        streak = self._streak
        measured = self._since(now, streak[0])
        if self._window.length <= 1.0:
            recent = max((refusal for refusal in streak if refusal[0] <= now - 1.0), default=streak[0])
            lately = self._since(now, recent)
            if lately < self._tuning.fallen * measured:
                streak.clear()
                streak.append(recent)
                measured = lately
        # The first one and enough of the latest to look back on.
        if len(streak) == (streak.maxlen or 0):
            del streak[1]
        streak.append((now, self._accepted))
        return measured

    def _since(self, now: float, refusal: tuple[float, int]) -> float:
        return (self._accepted - refusal[1]) / max(now - refusal[0], 1e-9)

    def _believe(self, limit: float) -> None:
        """Hold just below this limit from now on."""
        self._believed = _clamp(limit, self._tuning.least_rate, self._ceiling)
        self._sent = 0.0
        self._window.length = self._window_length()
        self._update()

    def _window_length(self) -> float:
        return max(1.0, self._tuning.window_messages / self._believed)

    def _hold(self) -> float:
        return _clamp(self._tuning.hold_messages / self._believed, self._tuning.hold_min, self._tuning.hold_max)

    def _climb(self) -> float:
        tuning = self._tuning
        return _clamp(tuning.climb_messages / self._believed, tuning.climb_min, tuning.climb_max)

    def _update(self) -> None:
        tuning, believed = self._tuning, self._believed
        hold = self._hold()
        if self._sent <= hold:
            rate = believed * (tuning.beta + (1.0 - tuning.beta) * self._sent / hold)
        else:
            doublings = ((self._sent - hold) / self._climb()) ** tuning.climb_power
            rate = believed * 2.0 ** min(doublings, _MAX_DOUBLINGS)
        self._rate = _clamp(rate, min(tuning.least_rate, self._ceiling), self._ceiling)
