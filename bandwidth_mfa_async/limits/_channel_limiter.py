"""The limiter of one channel: grants permits, adapts to 429s and pauses after them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .._config import Rate
from .._validation import LANES, checked_count, checked_lane, checked_seconds
from ..errors import ConfigurationError
from ._events import LimitEvents
from ._hold_and_probe import HoldAndProbe
from ._permit import Permit, deadline_error
from ._sliding_window import SlidingWindowCounter
from ._slow_start import SlowStart
from ._token_bucket import TokenBucket
from ._write_window import WriteTurn, WriteWindow, effective_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from .._validation import Lane
    from ..telemetry import Event

# How long the other callers wait for the answer to a probe message. It may never come: a timeout or a 5xx says nothing
# about limits and is not reported.
_PROBE_TIMEOUT: Final = 0.5


def _checked_per_second(rate: object) -> float | None:
    if rate is None:
        return None
    if not isinstance(rate, Rate):
        raise ConfigurationError("rate: must be a Rate or None")
    return effective_rate(rate)


class ChannelLimiter:
    """Limits one channel (messaging or voice) of one account within one process.

    ======== ======== ======================================================================================
    rate     adaptive behaviour
    ======== ======== ======================================================================================
    None     False    unlimited; after a Retry-After the queue is sent at a rate that doubles every second
    None     True     unlimited until the first 429, then hold and probe
    known    False    limited to the rate
    known    True     limited to the rate, and to less while the service rejects that
    ======== ======== ======================================================================================

    In every row a 429 with a Retry-After pauses the whole channel until then.

    Args:
        channel: its name in events and errors.
        rate: the account's known limit: a hard ceiling for the texts written in any second and in any of its periods;
            None when unknown.
        adaptive: adapt the rate to 429 answers.
        clock: provides time and timers.
        emit: receives events; None to build none.
        max_pause: the longest pause for a Retry-After, in seconds.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range.
    """

    def __init__(  # noqa: PLR0913 - keyword-only but the first
        self,
        channel: str,
        *,
        rate: Rate | None,
        adaptive: bool,
        clock: Clock,
        emit: Callable[[Event], None] | None = None,
        max_pause: float = 60.0,
    ) -> None:
        ceiling = _checked_per_second(rate)
        self._channel = channel
        # The highest possible rate; an estimated one has no bound.
        self._ceiling = ceiling
        self._clock = clock
        self._events = LimitEvents(channel, emit, ceiling)
        self._max_pause = checked_seconds("max_pause", max_pause)
        self._learner = HoldAndProbe(ceiling) if adaptive else None
        self._slow_start = SlowStart() if not adaptive and ceiling is None else None
        self._window = SlidingWindowCounter() if self._slow_start is not None else None
        self._bucket = TokenBucket(
            clock,
            ceiling,
            strict=ceiling is not None,
            on_delayed_grant=self._on_delayed_grant if ceiling is None or adaptive else None,
        )
        # The bucket decides when an attempt may begin, this when its text may be written.
        self._writes = None if rate is None else WriteWindow(clock, rate, self._bucket)
        self._probe_pause_until = -math.inf
        self._epoch = 0
        # Permits are values, so all callers share one while the channel is unlimited.
        self._free_permit = Permit(1, 0, refundable=False)

    def __repr__(self) -> str:
        learner = f", {self._learner!r}" if self._learner is not None else ""
        return f"ChannelLimiter({self._channel!r}, {self._bucket!r}{learner})"

    @property
    def rate(self) -> float | None:
        """The current rate in messages (segments) per second; None while unlimited."""
        return self._bucket.rate

    @property
    def waiting(self) -> int:
        """The number of callers waiting for a permit."""
        return self._bucket.waiting

    @property
    def epoch(self) -> int:
        """How many times the rate was cut."""
        return self._epoch

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if none has to be waited for and no waiter is overtaken, else None.

        Raises:
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        if self._bucket.free and weight == 1 and lane in LANES:
            return self._free_permit
        checked_count("weight", weight)
        checked_lane(lane)
        if self._slow_start is not None and self._slow_start.active:
            self._update_slow_start(self._slow_start)
        if not self._bucket.try_acquire(weight, lane):
            return None
        if self._learner is not None and self._learner.half_open:
            self._pause_for_probe(self._clock.monotonic())
        return self._make_permit(weight, lane)

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Return a permit, waiting until `deadline` at most.

        A cancelled caller leaves the queue; the other waiters keep their places.

        Args:
            weight: messages (segments) that the attempt counts as.
            lane: the lane to wait in.
            deadline: in the clock's seconds. If the wait is known to be longer, raise without waiting.

        Raises:
            RateLimitError: with ``local=True``: no permit is available in time; `retry_after` says when one will be.
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        permit = self.try_acquire(weight, lane)
        if permit is not None:
            return permit
        began = self._clock.monotonic()
        if deadline is not None and began + (wait := self._min_wait(weight, lane)) > deadline:
            raise deadline_error(self._channel, wait)
        if not await self._bucket.acquire(weight, lane, deadline):
            raise deadline_error(self._channel, self._min_wait(weight, lane))
        # No await from here on: a caller that is cancelled later refunds the permit itself.
        self._events.waited(lane, self._clock.monotonic() - began)
        return self._make_permit(weight, lane)

    def _make_permit(self, weight: int, lane: Lane) -> Permit:
        turn = None if self._writes is None else WriteTurn(self._writes, weight, lane)
        return Permit(weight, self._epoch, refundable=self._bucket.rate is not None, turn=turn)

    def refund(self, permit: Permit) -> None:
        """Return a permit whose attempt was not sent; it goes to the next waiter."""
        if permit.turn is not None:
            permit.turn.release()
        if permit.epoch == self._epoch:
            self._end_probe_pause(self._clock.monotonic())
        if permit.refundable:
            self._bucket.refund(permit.weight)

    def accepted(self, permit: Permit) -> None:
        """Record that the service accepted the message."""
        if self._learner is not None:
            now = self._clock.monotonic()
            self._learner.on_accept(now, permit.weight, permit.epoch)
            if self._epoch == 1 and permit.epoch == 0:
                self._bucket.set_rate(self._learner.rate())
            if self._epoch and permit.epoch == self._epoch:
                self._on_current_accept(now)
        elif self._window is not None:
            self._window.add(self._clock.monotonic(), permit.weight)

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Record that the service answered 429.

        Args:
            permit: the permit of the attempt.
            retry_after: the pause that the service requested, in seconds; None for none.
        """
        now = self._clock.monotonic()
        pause = 0.0
        if retry_after is not None and retry_after >= 0:  # False for NaN
            pause = min(float(retry_after), self._max_pause)
        if self._learner is not None:
            pause = self._learner.on_429(now, permit.epoch, pause)
        was_paused_until = self._bucket.paused_until
        resume_at = max(now + pause, was_paused_until)
        # Pause before changing the rate: a higher rate would grant waiters at once.
        if resume_at > max(now, was_paused_until):
            self._bucket.pause_until(resume_at)
            self._events.paused(was_paused_until, resume_at, now)
        if self._learner is not None:
            self._apply_cut(self._learner)
        elif self._slow_start is not None and self._window is not None and pause:
            if was_paused_until <= now:
                self._slow_start.end()  # a new episode starts with a new measurement
            self._bucket.set_rate(self._slow_start.begin(resume_at, self._window.per_second(now)))

    def recent_writes(self, now: float) -> list[tuple[float, int]]:
        """Return the times and weights of the writes that still count against the configured rate."""
        return [] if self._writes is None else self._writes.recent(now)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, current and future, with a separate error: the client is closing."""
        self._bucket.abort(make_error)
        if self._writes is not None:
            self._writes.abort(make_error)

    def _on_delayed_grant(self, now: float, weight: int) -> float | None:
        """Return the rate after a caller that had to wait was granted."""
        if self._learner is not None:
            if self._learner.half_open:
                self._pause_for_probe(now)
            return self._learner.on_grant(weight)
        if self._slow_start is not None and self._slow_start.active:
            if not self._bucket.waiting:
                self._slow_start.end()
            return self._slow_start.rate(now)
        return self._bucket.rate

    def _update_slow_start(self, slow_start: SlowStart) -> None:
        now = self._clock.monotonic()
        if not self._bucket.waiting and slow_start.can_end(now):
            slow_start.end()
        self._bucket.set_rate(slow_start.rate(now))

    def _apply_cut(self, learner: HoldAndProbe) -> None:
        if learner.epoch == self._epoch:
            return
        self._epoch = learner.epoch
        self._free_permit = Permit(1, self._epoch, refundable=False)
        rate = learner.rate()
        self._bucket.set_rate(rate)
        self._events.rate_changed(rate, cut=True)

    def _on_current_accept(self, now: float) -> None:
        """Handle an acceptance in the current epoch: end the probe pause, and emit the rate if it has risen."""
        self._end_probe_pause(now)
        self._events.rate_changed(self._bucket.rate, cut=False)

    def _pause_for_probe(self, now: float) -> None:
        """Pause until the answer to the message that has just left is known."""
        self._probe_pause_until = now + _PROBE_TIMEOUT
        self._bucket.pause_until(self._probe_pause_until)

    def _end_probe_pause(self, now: float) -> None:
        # Keep a pause that a Retry-After has extended in the meantime.
        if self._probe_pause_until > now and self._bucket.paused_until == self._probe_pause_until:
            self._bucket.pause_until(now)

    def _min_wait(self, weight: int, lane: Lane) -> float:
        if self._slow_start is None or not self._slow_start.active:
            return self._bucket.min_wait(weight, lane, self._ceiling)
        now = self._clock.monotonic()
        wanted = self._bucket.weight_ahead(lane) + weight
        return max(0.0, self._bucket.paused_until - now) + self._slow_start.seconds_for(wanted, now)
