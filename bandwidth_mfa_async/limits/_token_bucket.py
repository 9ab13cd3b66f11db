"""The token bucket: grants permits at a rate, first come first served within two lanes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from ._lanes import LaneQueue, Waiter, was_granted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock, TimerHandle
    from .._validation import Lane

BURST_SECONDS: Final = 0.05
"""The burst in seconds of the rate: enough to compensate for a late timer, too little to look like a burst."""

# A timer may fire early by a rounding error. Without a tolerance its waiter would wait for another 1e-16 s, again and
# again, and in virtual time endlessly. So slightly less than a permit counts as one, and waits have a minimum.
_TOLERANCE: Final = 1e-5
_MIN_WAIT: Final = 1e-5

# A strict bucket makes up for this many seconds of lateness.
_CATCH_UP: Final = 0.1

# A strict bucket is slower than its rate by this share, so that the writes that follow its grants rarely meet the
# ceiling although some are later than others.
_HEADROOM: Final = 0.004


def checked_rate(rate: object) -> float | None:
    """Return a rate in permits per second; None for unlimited.

    Raises:
        ConfigurationError: not a finite number above 0.
    """
    if rate is None:
        return None
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not (math.isfinite(rate) and rate > 0):
        raise ConfigurationError("rate: must be a finite number above 0, or None for unlimited")
    return float(rate)


class TokenBucket:
    """A token bucket with a queue: strict order within a lane, one timer for all waiters.

    A heavy permit saves up tokens at the head of its lane while lighter ones wait behind it, so heavy permits do not
    starve. The bucket grows for a permit that is heavier than its capacity. Between any two moments at most
    ``rate * seconds + max(burst, heaviest weight)`` permits are granted and not refunded.

    A strict bucket has no burst after idle time: it only makes up for timers that are late while callers wait. A heavy
    permit is granted like a light one, and the following time is kept free.

    Args:
        clock: provides time and the timer.
        rate: permits per second; None for unlimited.
        strict: no burst after idle time.
        burst: permits that may leave at once after idle time; by default 50 ms of the rate, at least 1.
        on_delayed_grant: called with the time and the weight when a caller that had to wait is granted; returns the
            rate to continue with.
    """

    def __init__(
        self,
        clock: Clock,
        rate: float | None = None,
        *,
        strict: bool = False,
        burst: float | None = None,
        on_delayed_grant: Callable[[float, int], float | None] | None = None,
    ) -> None:
        self._clock = clock
        self._rate = checked_rate(rate)
        self._strict = strict
        self._fixed_burst = burst
        self._burst = 1.0
        self._on_delayed_grant = on_delayed_grant
        self._queue = LaneQueue()
        # Heap of deadlines. Entries of waiters that left stay until their time or the next clean-up.
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._sequence = itertools.count()
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf
        self._paused_until = -math.inf
        self._held = False
        # The time of the last grant to a caller that waited.
        self._last_delayed_grant = -math.inf
        self._update_burst()
        # The bucket held `_level` at `_refilled_at`. Before first use it is full.
        self._level = 1.0 if strict else self._burst
        self._refilled_at = -math.inf
        self._granting = False
        self._abort_error: Callable[[], BaseException] | None = None
        self.free = self._rate is None
        """True while every permit is granted at once: unlimited, not paused, no waiters."""

    def __repr__(self) -> str:
        parts = ["unlimited" if self._rate is None else f"rate={self._rate:.4g}/s"]
        try:
            now = self._clock.monotonic()
        except RuntimeError:  # outside the event loop there is no time
            now = math.nan
        if self._rate is not None:
            level = self._level if math.isnan(now) else self._level_at(now)
            parts.append(f"level={level:.2f} of {self._burst:.4g}")
        parts += [f"interactive={self._queue.count('interactive')}", f"bulk={self._queue.count('bulk')}"]
        if self._paused_until > now:
            parts.append(f"paused for {self._paused_until - now:.3f} s")
        if self._timer is not None and not math.isnan(now):
            parts.append(f"next wake-up in {max(0.0, self._timer_at - now):.3f} s")
        else:
            parts.append("no wake-up set")
        return f"TokenBucket({', '.join(parts)})"

    @property
    def rate(self) -> float | None:
        """Permits per second; None when unlimited."""
        return self._rate

    @property
    def burst(self) -> float:
        """Permits that may leave at once after idle time."""
        return self._burst

    @property
    def paused_until(self) -> float:
        """The end of the pause in the clock's seconds; a past time when not paused."""
        return self._paused_until

    @property
    def waiting(self) -> int:
        """The number of waiting callers in both lanes."""
        return len(self._queue)

    def weight_ahead(self, lane: Lane) -> int:
        """Return the total weight that leaves before a new waiter of this lane."""
        return self._queue.weight_ahead(lane)

    def try_acquire(self, weight: int, lane: Lane) -> bool:
        """Take a permit without waiting and without overtaking a waiter. Raise the error of `abort` after it."""
        if self.free:
            return True
        if self._abort_error is not None:
            raise self._abort_error()
        now = self._clock.monotonic()
        if now < self._paused_until or self._held or self._queue.must_wait(lane):
            return False
        if self._rate is None:
            self._update_free(now)
            return True
        need = self._need(weight)
        self._refill(now, need)
        if self._level < need - _TOLERANCE:
            return False
        self._level -= weight
        return True

    def min_wait(self, weight: int, lane: Lane, max_rate: float | None) -> float:
        """Return the shortest possible wait of a new caller in seconds, if no waiter leaves.

        Args:
            weight: the weight of the new caller.
            lane: its lane.
            max_rate: the highest rate the bucket may reach; None for no bound, because an estimate may be far too low.
        """
        now = self._clock.monotonic()
        pause = max(0.0, self._paused_until - now)
        if self._rate is None or max_rate is None:
            return pause
        wanted = self._queue.weight_ahead(lane) + self._need(weight)
        return pause + max(0.0, wanted - self._level_at(now)) / max(max_rate, self._rate)

    async def acquire(self, weight: int, lane: Lane, deadline: float | None = None) -> bool:
        """Wait for a permit; return False when `deadline` (in the clock's seconds) passed first.

        A cancelled caller leaves the queue. A caller that is cancelled at the moment of its grant refunds the permit,
        so no capacity is lost.
        """
        if self.try_acquire(weight, lane):
            return True
        waiter = Waiter(asyncio.get_running_loop().create_future(), weight, lane)
        self._queue.append(waiter)
        self.free = False
        if deadline is not None:
            self._add_deadline(deadline, waiter)
        self._schedule_timer(self._clock.monotonic())
        try:
            return await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                self.refund(weight)
            elif self._queue.remove(waiter):
                self._grant_ready()  # the next waiter may be lighter
            raise

    def refund(self, weight: int) -> None:
        """Return an unused permit and grant the waiters that it suffices for."""
        if self._rate is not None:
            self._refill(self._clock.monotonic())
            head = self._queue.head()
            capacity = max(self._capacity(self._refilled_at), self._need(head.weight) if head else 0.0)
            self._level = min(self._level + weight, capacity)
        self._grant_ready()

    def hold(self) -> None:
        """Grant nothing until `resume`."""
        self._held = True

    def resume(self) -> None:
        """End `hold`, and grant the waiters whose turn has come."""
        if self._held:
            self._held = False
            self._grant_ready()

    def set_rate(self, rate: float | None) -> None:
        """Change the rate. Saved tokens are kept up to the capacity of the new bucket."""
        self._change_rate(checked_rate(rate), self._clock.monotonic())
        self._grant_ready()

    def pause_until(self, when: float) -> None:
        """Grant nothing before `when`. An earlier time than before shortens the pause.

        No tokens are saved up during the pause, so waiters leave at the rate afterwards, not together.
        `on_delayed_grant` may call this; the remaining waiters then wait for the end of the pause.
        """
        now = self._clock.monotonic()
        self._refill(now)
        self._level = min(self._level, 1.0)
        self._refilled_at = max(now, when)
        self._paused_until = when
        self._grant_ready()

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """Give every waiter, current and future, a separate error."""
        self._abort_error = make_error
        self._queue.abort(make_error)
        self._schedule_timer(self._clock.monotonic())

    def _update_burst(self) -> None:
        if self._fixed_burst is not None:
            self._burst = max(1.0, self._fixed_burst)
        else:
            self._burst = 1.0 if self._rate is None else max(1.0, self._rate * BURST_SECONDS)

    def _level_at(self, now: float, need: float = 0.0) -> float:
        elapsed = now - self._refilled_at
        if elapsed <= 0 or self._rate is None:
            return self._level
        return min(self._level + elapsed * self._speed(self._rate), max(self._capacity(now), need, self._level))

    def _need(self, weight: int) -> float:
        """Return the level at which a permit is granted."""
        return 1.0 if self._strict else weight

    def _speed(self, rate: float) -> float:
        return rate * (1.0 - _HEADROOM) if self._strict else rate

    def _capacity(self, now: float) -> float:
        if not self._strict:
            return self._burst
        if self._rate is None or (not self._queue and now - self._last_delayed_grant > _CATCH_UP):
            return 1.0
        return 1.0 + self._rate * _CATCH_UP

    def _refill(self, now: float, need: float = 0.0) -> None:
        """Update the level. The waiter at the head may save up more than the capacity."""
        head = self._queue.head()
        if head is not None:
            need = max(need, self._need(head.weight))
        # A higher level was saved up by a heavy waiter that has left.
        self._level = min(self._level_at(now, need), max(self._capacity(now), need))
        self._refilled_at = max(self._refilled_at, now)

    def _change_rate(self, rate: float | None, now: float) -> None:
        if rate == self._rate:
            return
        if self._rate is None:
            self._level, self._refilled_at = min(self._level, 1.0), max(now, self._paused_until)
        else:
            self._refill(now)
        self._rate = rate
        self._update_burst()
        self._refill(now)

    def _grant_ready(self) -> None:
        """Grant every waiter whose turn has come, then set the timer for the next one."""
        if self._granting:
            return
        now = self._clock.monotonic()
        self._expire(now)
        self._refill(now)
        self._granting = True
        try:
            while now >= self._paused_until and not self._held and (head := self._queue.head()) is not None:
                if self._rate is not None:
                    self._refill(now)
                    if self._level < self._need(head.weight) - _TOLERANCE:
                        break
                self._queue.remove(head)
                if head.future.done():  # cancelled, but its task has not run yet: no permit is used
                    continue
                if self._rate is not None:
                    self._level -= head.weight
                head.future.set_result(True)
                self._last_delayed_grant = now
                if self._on_delayed_grant is not None:
                    self._change_rate(checked_rate(self._on_delayed_grant(now, head.weight)), now)
        finally:
            self._granting = False
        self._schedule_timer(now)

    def _schedule_timer(self, now: float) -> None:
        """Set the one timer to the next grant or deadline."""
        self._update_free(now)
        when = math.inf
        head = self._queue.head()
        if head is not None:
            when = math.inf if self._held else self._paused_until
            if self._rate is not None:
                missing = self._need(head.weight) - self._level
                when = max(when, self._refilled_at + missing / self._speed(self._rate))
            if self._deadlines:
                when = min(when, self._deadlines[0][0])
            when = max(when, now + _MIN_WAIT)
        elif self._deadlines:
            self._deadlines.clear()
        if self._timer is not None:
            if self._timer_at == when:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_at = when
        if when < math.inf:
            self._timer = self._clock.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._grant_ready()

    def _update_free(self, now: float) -> None:
        self.free = self._rate is None and not self._queue and now >= self._paused_until and self._abort_error is None

    def _add_deadline(self, deadline: float, waiter: Waiter) -> None:
        if len(self._deadlines) > 2 * len(self._queue) + 64:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].future.done()]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, next(self._sequence), waiter))

    def _expire(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].future.done()):
            waiter = heapq.heappop(self._deadlines)[2]
            if self._queue.remove(waiter) and not waiter.future.done():
                waiter.future.set_result(False)
