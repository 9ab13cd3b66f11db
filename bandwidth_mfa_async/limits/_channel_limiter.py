"""What the client calls: one limiter a channel, which paces, learns and closes the gate after a 429."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from .._config import Rate
from .._validation import LANES, checked_count, checked_lane
from ..errors import ConfigurationError
from ..telemetry import LimitChangedEvent, LimitWaitEvent, SendsPausedEvent
from ._hold_and_probe import HoldAndProbe
from ._permit import Permit, deadline_error
from ._sliding_window import SlidingWindowCounter
from ._slow_start import SlowStart
from ._token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from .._validation import Lane
    from ..telemetry import Event

# How much higher a probed rate must be than the one last told of to be worth an event, and how much longer a gate.
_RATE_CHANGE_THRESHOLD: Final = 1.25
_PAUSE_EVENT_THRESHOLD: Final = 0.5

# How long the rest waits for the answer to the one message that tries a closed gate. Its outcome may never come: a
# timeout or a 5xx says nothing about limits and is not reported.
_PROBE_PATIENCE: Final = 0.5


def _ceiling(rate: object) -> float | None:
    if rate is None:
        return None
    if not isinstance(rate, Rate):
        raise ConfigurationError("rate: must be a Rate or None")
    return rate.per_second


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        msg = f"{name}: must be a number of seconds of at least 0"
        raise ConfigurationError(msg)
    return float(value)


class ChannelLimiter:
    """Paces one channel (messaging or voice) of one account from one process.

    ======== ======== ==================================================================================
    rate     adaptive what happens
    ======== ======== ==================================================================================
    None     False    unlimited; after a Retry-After the queue leaves at a pace that doubles every second
    None     True     unlimited until the first 429, then hold and probe
    known    False    paced at the rate
    known    True     paced at the rate, and lower while the service refuses that
    ======== ======== ==================================================================================

    In every row a 429 with a Retry-After closes the gate of the whole channel until then.

    Args:
        channel: its name in events and errors.
        rate: the account's known limit, never exceeded; None when unknown.
        adaptive: learn from 429 answers.
        clock: where time comes from.
        emit: receives events; None to build none.
        max_pause: the longest a Retry-After may close the gate, in seconds.

    Raises:
        ConfigurationError: a value is of the wrong type or out of its range.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named
        self,
        channel: str,
        *,
        rate: Rate | None,
        adaptive: bool,
        clock: Clock,
        emit: Callable[[Event], None] | None = None,
        max_pause: float = 60.0,
    ) -> None:
        ceiling = _ceiling(rate)
        self._channel = channel
        # The highest rate there may ever be; a learnt one has no such bound.
        self._ceiling = None if rate is None else rate.per_second
        self._clock = clock
        self._emit = emit
        self._max_pause = _seconds("max_pause", max_pause)
        self._learner = HoldAndProbe(ceiling) if adaptive else None
        self._ramp = SlowStart() if not adaptive and ceiling is None else None
        self._window = SlidingWindowCounter() if self._ramp is not None else None
        self._pacer = TokenBucket(clock, ceiling, on_paced=self._on_paced if ceiling is None or adaptive else None)
        self._gate_probe_until = -math.inf
        self._told_rate = math.inf if ceiling is None else ceiling
        self._epoch = 0
        # Permits are values, so while nothing is limited one serves all callers.
        self._free_permit = Permit(1, 0, paced=False)

    def __repr__(self) -> str:
        learner = f", {self._learner!r}" if self._learner is not None else ""
        return f"ChannelLimiter({self._channel!r}, {self._pacer!r}{learner})"

    @property
    def rate(self) -> float | None:
        """Messages (segments) a second this channel is held to now; None while it is not held at all."""
        return self._pacer.rate

    @property
    def waiting(self) -> int:
        """How many callers wait for a permit."""
        return self._pacer.waiting

    @property
    def epoch(self) -> int:
        """How many times the rate was cut."""
        return self._epoch

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if that needs no waiting and overtakes nobody.

        Raises:
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: what `abort` was given, after it.
        """
        if self._pacer.free and weight == 1 and lane in LANES:
            return self._free_permit
        checked_count("weight", weight)
        checked_lane(lane)
        if self._ramp is not None and self._ramp.active:
            self._follow(self._ramp)
        if not self._pacer.try_acquire(weight, lane):
            return None
        if self._learner is not None and self._learner.half_open:
            self._probe_gate(self._clock.monotonic())
        return Permit(weight, self._epoch, paced=self._pacer.rate is not None)

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Return a permit, waiting for it as long as it takes or `deadline` allows.

        A cancelled caller leaves the line and loses nobody's place.

        Args:
            weight: how many messages (segments) the attempt stands for.
            lane: which line to wait in.
            deadline: in the clock's seconds; when the wait is known to be longer it is not begun.

        Raises:
            RateLimitError: with ``local=True``: there is no permit in time; `retry_after` says when there would be.
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: what `abort` was given, from then on.
        """
        permit = self.try_acquire(weight, lane)
        if permit is not None:
            return permit
        began = self._clock.monotonic()
        if deadline is not None and began + (wait := self._expected_wait(weight, lane)) > deadline:
            raise deadline_error(self._channel, wait)
        if not await self._pacer.acquire(weight, lane, deadline):
            raise deadline_error(self._channel, self._expected_wait(weight, lane))
        # No await from here on: a caller cancelled later holds the permit and gives it back itself.
        if self._emit is not None:
            waited = self._clock.monotonic() - began
            self._emit(LimitWaitEvent(channel=self._channel, lane=lane, seconds=waited))
        return Permit(weight, self._epoch, paced=self._pacer.rate is not None)

    def refund(self, permit: Permit) -> None:
        """Take back a permit whose attempt never left this process; the next in line gets it."""
        if permit.epoch == self._epoch:
            self._open_probed_gate(self._clock.monotonic())
        if permit.paced:
            self._pacer.refund(permit.weight)

    def accepted(self, permit: Permit) -> None:
        """Learn that the service took the message."""
        if self._learner is not None:
            now = self._clock.monotonic()
            self._learner.on_accept(now, permit.weight, permit.epoch)
            if self._epoch == 1 and permit.epoch == 0:
                self._pacer.set_rate(self._learner.rate())
            if self._epoch and permit.epoch == self._epoch:
                self._proved(now)
        elif self._window is not None:
            self._window.add(self._clock.monotonic(), permit.weight)

    def refused(self, permit: Permit, retry_after: float | None) -> None:
        """Learn that the service answered 429.

        Args:
            permit: the attempt's.
            retry_after: what the service asked for, in seconds; None when it asked for nothing.
        """
        now = self._clock.monotonic()
        pause = 0.0
        if retry_after is not None and retry_after >= 0:  # a NaN is not
            pause = min(float(retry_after), self._max_pause)
        if self._learner is not None:
            pause = self._learner.on_429(now, permit.epoch, pause)
        was_closed_until = self._pacer.paused_until
        opens = max(now + pause, was_closed_until)
        # First the gate, then the rate: the other way round, a higher rate would let waiters slip through.
        if opens > max(now, was_closed_until):
            self._pacer.pause_until(opens)
            if self._emit is not None and (
                was_closed_until <= now or opens - was_closed_until > _PAUSE_EVENT_THRESHOLD
            ):
                self._emit(SendsPausedEvent(channel=self._channel, seconds=opens - now))
        if self._learner is not None:
            self._follow_cut(self._learner)
        elif self._ramp is not None and self._window is not None and pause:
            if was_closed_until <= now:
                self._ramp.end()  # a new episode, measured anew
            self._pacer.set_rate(self._ramp.begin(opens, self._window.per_second(now)))

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, now and later, with an error of its own: the client is closing."""
        self._pacer.abort(make_error)

    def _on_paced(self, now: float, weight: int) -> float | None:
        """Say at which rate the pacer goes on after it served somebody who had waited."""
        if self._learner is not None:
            if self._learner.half_open:
                self._probe_gate(now)
            return self._learner.on_grant(weight)
        if self._ramp is not None and self._ramp.active:
            if not self._pacer.waiting:
                self._ramp.end()
            return self._ramp.rate(now)
        return self._pacer.rate

    def _follow(self, ramp: SlowStart) -> None:
        now = self._clock.monotonic()
        if not self._pacer.waiting and ramp.idle(now):
            ramp.end()
        self._pacer.set_rate(ramp.rate(now))

    def _follow_cut(self, learner: HoldAndProbe) -> None:
        if learner.epoch == self._epoch:
            return
        self._epoch = learner.epoch
        self._free_permit = Permit(1, self._epoch, paced=False)
        rate = learner.rate()
        self._pacer.set_rate(rate)
        if rate is not None and rate != self._told_rate:
            self._tell_rate(rate, "refused")

    def _proved(self, now: float) -> None:
        """Go on after an accepted message: the gate is open, and the rate that let it through is sound."""
        self._open_probed_gate(now)
        rate = self._pacer.rate
        if rate is not None and rate > self._told_rate * _RATE_CHANGE_THRESHOLD:
            self._tell_rate(rate, "probe")

    def _probe_gate(self, now: float) -> None:
        """Let nobody follow the message that left just now until its answer is known."""
        self._gate_probe_until = now + _PROBE_PATIENCE
        self._pacer.pause_until(self._gate_probe_until)

    def _open_probed_gate(self, now: float) -> None:
        # A Retry-After that came meanwhile has set another end, and is kept.
        if self._gate_probe_until > now and self._pacer.paused_until == self._gate_probe_until:
            self._pacer.pause_until(now)

    def _tell_rate(self, rate: float, cause: Literal["refused", "probe"]) -> None:
        self._told_rate = rate
        if self._emit is not None:
            self._emit(LimitChangedEvent(channel=self._channel, rate=rate, cause=cause))

    def _expected_wait(self, weight: int, lane: Lane) -> float:
        if self._ramp is None or not self._ramp.active:
            return self._pacer.least_wait(weight, lane, self._ceiling)
        now = self._clock.monotonic()
        wanted = self._pacer.weight_ahead(lane) + weight
        return max(0.0, self._pacer.paused_until - now) + self._ramp.seconds_for(wanted, now)
