"""The limiter of one process under a shared limit: reports, receives grants, and falls back during outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from ..._process import PerProcess
from ..._redis._fail_fast import StoreUnavailableError
from ..._validation import LANES, checked_count, checked_lane
from ...errors import ConfigurationError
from ...telemetry import LOGGER_NAME
from .._events import LimitEvents
from .._lanes import was_granted
from .._permit import Permit, deadline_error
from .._sliding_window import SlidingWindowCounter
from .._write_window import effective_rate
from ._background import BackgroundTask
from ._fallback import FallbackEndedError, FallbackLimiter, make_local_limiter, share_of
from ._grant import PermitGrant, Report
from ._grant_queue import GrantQueue, GrantWaiter
from ._pending_report import PendingReport, WriteKind
from ._shared_turn import SharedWrites

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._clock import Clock
    from ..._config import Rate
    from ..._validation import Lane
    from ...telemetry import Event
    from ._grant import LimitStore

_FLUSH_DELAY: Final = 0.1  # seconds until counts are reported
_UNLIMITED_TTL: Final = 1.0  # seconds for which "unlimited" is valid without another exchange
_POLL_INTERVAL: Final = 1.0  # seconds between exchanges while waiting for a distant slot
_RETRY_DELAY: Final = (0.5, 1.0)  # seconds between attempts to reach an unavailable store (random)
_SEED_SHARE: Final = 0.8  # an empty Redis starts with this share of the last known rate
_SHARE_WINDOW: Final = 2.0  # seconds over which the share of this process is measured

_logger = logging.getLogger(LOGGER_NAME)


class SharedLimiter:
    """A `Limiter` for one channel whose rate, pause and turns are shared by all processes.

    While the channel is unlimited, permits are free and only counts are reported. Otherwise the limiter requests
    permits for the total weight of its waiters and hands them out in order. When the store is unavailable, a
    `ChannelLimiter` at this process's own recent share takes over until the store is back.

    Args:
        channel: its name in events and errors.
        store: access to the shared state.
        rate: the account's known limit, for all processes together.
        adaptive: adapt the rate to 429 answers.
        clock: provides time and timers.
        emit: receives events.
        max_pause: the longest pause for a Retry-After, in seconds.
        fallback_rate: messages per second of this process if the store was never available.
        expires: seconds after which unused shared state is deleted.
        required: whether a store that rejects the client (its password, its version) is an error of the call.
    """

    def __init__(  # noqa: PLR0913 - keyword-only but the first
        self,
        channel: str,
        *,
        store: LimitStore,
        rate: Rate | None,
        adaptive: bool,
        clock: Clock,
        emit: Callable[[Event], None] | None,
        max_pause: float,
        fallback_rate: float | None,
        expires: float,
        required: bool = False,
    ) -> None:
        self._channel = channel
        self._adaptive = adaptive
        self._clock = clock
        self._max_pause = max_pause
        self._local_limiter = partial(make_local_limiter, channel, adaptive=adaptive, clock=clock, max_pause=max_pause)
        self._local_limiter(None if rate is None else rate.per_second)  # validates the arguments
        self._store = store
        self._ceiling = None if rate is None else effective_rate(rate)
        self._processes = 1
        self._events = LimitEvents(channel, emit, self._ceiling)
        self._fallback_rate = fallback_rate
        self._expires = expires
        self._required = required
        # Made at their first use: workers that a fork made are different processes.
        self._process_id = PerProcess(lambda: secrets.token_hex(6))
        self._rng = PerProcess(random.Random)
        self._abort_error: Callable[[], BaseException] | None = None
        # The shared state according to the last answer.
        self._synced = False
        self._fresh_until = -math.inf
        self._rate: float | None = None
        self._epoch = 0
        self._half_open = False
        self._paused_until = -math.inf
        self._tickets: dict[str, tuple[float, float]] = {}
        self._queue = GrantQueue()
        self._pending = PendingReport()
        self._task = BackgroundTask(clock, self._due, self._exchange)
        self._last_exchange_at = -math.inf
        self._writes = None if rate is None else SharedWrites(rate, clock, self.acquire, self._pending, self._flush)
        # State of outages.
        self._recent_grants = SlidingWindowCounter(_SHARE_WINDOW)
        self._fallback: FallbackLimiter | None = None
        self._outages = 0
        self._retry_at = -math.inf
        self._called_since_retry = False

    def __repr__(self) -> str:
        state = "unlimited" if self._rate is None else f"rate={self._rate:.4g}/s"
        local = "" if self._fallback is None else f", without the shared state: {self._fallback!r}"
        synced = "" if self._synced else ", not synced yet"
        about = f"{state}{synced}, epoch={self._epoch}, {self._queue!r}{local}"
        return f"SharedLimiter({self._channel!r}, {about})"

    @property
    def rate(self) -> float | None:
        """The rate of all processes in messages (segments) per second; None while unlimited or unknown.

        During an outage the rate of this process.
        """
        return self._rate if self._fallback is None else self._fallback.rate

    @property
    def waiting(self) -> int:
        """The number of callers of this process waiting for a permit."""
        return len(self._queue) + (0 if self._fallback is None else self._fallback.waiting)

    @property
    def epoch(self) -> int:
        """How many times the shared rate was cut."""
        return self._epoch

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if that needs neither waiting nor Redis, and overtakes no waiter of this process.

        Raises:
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        if weight != 1 or lane not in LANES:
            checked_count("weight", weight)
            checked_lane(lane)
        if self._abort_error is not None:
            raise self._abort_error()
        if self._fallback is not None:
            self._called_since_retry = True
            self._task.notify()
            permit = self._fallback.try_acquire(weight, lane)
            return None if permit is None else self._with_turn(permit, lane)
        if self._queue.must_wait(lane):
            return None
        now = self._clock.monotonic()
        if self._rate is None:
            if now < self._fresh_until and now >= self._paused_until:
                self._recent_grants.add(now, weight)
                return Permit(weight, self._epoch, refundable=False)
            return None
        return self._make_permit(weight, lane) if self._queue.take(weight) else None

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Return a permit, waiting until `deadline` at most.

        A cancelled caller leaves the queue; the other waiters keep their places.

        Args:
            weight: messages (segments) that the attempt counts as.
            lane: the lane to wait in.
            deadline: in the clock's seconds. If the wait is known to be longer, raise without waiting.

        Raises:
            RateLimitError: with ``local=True``: no permit is available in time.
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: the error of `abort`, after it was called.
        """
        permit = self.try_acquire(weight, lane)
        if permit is not None:
            return permit
        began = self._clock.monotonic()
        while permit is None:
            if self._abort_error is not None:
                raise self._abort_error()
            local = self._fallback
            if local is None:
                permit = await self._wait_in_queue(weight, lane, deadline)
                continue
            self._called_since_retry = True
            self._task.notify()
            with contextlib.suppress(FallbackEndedError):
                permit = self._with_turn(await local.acquire(weight, lane, deadline), lane)
        self._events.waited(lane, self._clock.monotonic() - began)
        return permit

    def refund(self, permit: Permit) -> None:
        """Return a permit whose attempt was not sent; it goes to the next waiter."""
        if permit.turn is not None:
            permit.turn.release()
        if self._fallback is not None:
            self._fallback.refund(permit)
        elif permit.refundable and permit.epoch >= 0 and self._abort_error is None:
            if permit.epoch == self._epoch and not self._half_open:
                self._queue.available += permit.weight
                self._grant_ready()
            else:
                self._pending.unused += permit.weight
            self._flush(0.0 if self._half_open else _FLUSH_DELAY)

    def accepted(self, permit: Permit) -> None:
        """Record that the service accepted the message."""
        if permit.turn is not None:
            permit.turn.written()
        if self._fallback is not None:
            self._fallback.accepted(permit)
        elif permit.epoch >= 0:
            self._pending.add_accepted(permit.weight, current=permit.epoch == self._epoch)
            self._flush(0.0 if self._half_open else _FLUSH_DELAY)

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Record that the service answered 429.

        Args:
            permit: the permit of the attempt.
            retry_after: the pause that the service requested, in seconds; None for none.
        """
        now = self._clock.monotonic()
        if permit.turn is not None:
            permit.turn.written()
        if retry_after is not None and retry_after > 0:  # False for NaN
            self._pending.pause(now + min(float(retry_after), self._max_pause))
        self._pending.add_rejected(permit.epoch)
        if self._fallback is not None:
            self._fallback.rejected(permit, retry_after)
            return
        # Nothing leaves before this report is answered.
        self._return_available()
        self._fresh_until = -math.inf
        before = self._paused_until
        self._paused_until = max(before, self._pending.retry_after_until)
        self._events.paused(before, self._paused_until, now)
        self._flush(0.0)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, current and future, with a separate error: the client is closing."""
        self._abort_error = make_error
        self._queue.abort(make_error)
        if self._writes is not None:
            self._writes.abort(make_error, closing=True)
        if self._fallback is not None:
            self._fallback.abort(make_error)
        self._task.abort()

    async def aclose(self) -> None:
        """Send the last report and close the connection. Call `abort` first to end the waits."""
        try:
            await self._task.aclose()
            if self._fallback is None and self._due() < math.inf:
                with contextlib.suppress(StoreUnavailableError):
                    await self._store.exchange(self._report(self._clock.monotonic()).arguments())
        finally:
            await self._store.aclose()

    # The queue of this process.

    async def _wait_in_queue(self, weight: int, lane: Lane, deadline: float | None) -> Permit | None:
        """Wait for a permit; return None when the store became unavailable meanwhile."""
        if deadline is not None and self._clock.monotonic() + (wait := self._min_wait(weight, lane)) > deadline:
            raise deadline_error(self._channel, wait)
        waiter = GrantWaiter(asyncio.get_running_loop().create_future(), weight, lane)
        self._queue.append(waiter)
        self._task.notify()
        timer = None if deadline is None else self._clock.call_at(deadline, partial(self._expire, waiter))
        try:
            granted = await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                if waiter.permit is not None:
                    self.refund(waiter.permit)
            elif self._queue.remove(waiter):
                self._grant_ready()  # the next waiter may be lighter
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise deadline_error(self._channel, self._min_wait(weight, lane))
        return waiter.permit

    def _make_permit(self, weight: int, lane: Lane) -> Permit:
        self._recent_grants.add(self._clock.monotonic(), weight)
        return self._with_turn(Permit(weight, self._epoch, refundable=self._rate is not None), lane)

    def _with_turn(self, permit: Permit, lane: Lane) -> Permit:
        return permit if self._writes is None else self._writes.with_turn(permit, lane)

    def _grant_ready(self) -> None:
        """Hand out the available permits in order."""
        self._queue.serve(self._make_permit)
        if self._queue.available and not self._queue:
            self._flush(_FLUSH_DELAY)

    def _expire(self, waiter: GrantWaiter) -> None:
        if self._queue.remove(waiter) and not waiter.future.done():
            waiter.future.set_result(False)
            self._grant_ready()

    def _min_wait(self, weight: int, lane: Lane) -> float:
        pause = max(0.0, self._paused_until - self._clock.monotonic())
        if self._ceiling is None or self._rate is None:
            return pause
        shortfall = self._queue.shortfall(weight, lane)
        # The shared bucket may hold tokens, so its capacity is not counted as a wait.
        return pause + max(0.0, shortfall - 1.0 - 0.15 * self._ceiling) / self._ceiling

    # Exchanges with the shared state.

    def _return_available(self) -> None:
        self._pending.unused += self._queue.take_all()

    def _flush(self, after: float) -> None:
        """Schedule the pending report within this many seconds."""
        self._pending.due = min(self._pending.due, self._clock.monotonic() + after)
        self._task.notify()

    def _due(self) -> float:
        """Return when the next exchange is needed; infinity for never."""
        if self._fallback is not None:
            # Without callers, do not retry until the next one comes.
            return self._retry_at if self._called_since_retry or self._fallback.waiting else math.inf
        due = self._pending.due
        if self._writes is not None:
            due = min(due, self._writes.due(self._last_exchange_at + _POLL_INTERVAL))
        for lane, want in zip(LANES, self._queue.shortfalls(), strict=True):
            if want > 0:
                slot = self._tickets.get(lane, (0.0, -math.inf))[1]
                due = min(due, slot, self._last_exchange_at + _POLL_INTERVAL)
        return due

    def _report(self, now: float) -> Report:
        """Build a report from the pending counts and the current needs."""
        if not self._queue or self._writes is not None:
            self._return_available()
        if self._rate is None:
            self._pending.unused = 0
        report = Report(
            adaptive=self._adaptive,
            ceiling=self._ceiling or 0.0,
            epoch=self._epoch,
            seed=_SEED_SHARE * self._rate if self._rate is not None and self._synced else 0.0,
            expires=self._expires,
            process=self._process_id.get(),
            returned=self._fallback is not None,
        )
        report.request(self._queue, self._tickets)
        if self._writes is not None:
            self._writes.request(report)
        if self._fallback is not None and self._writes is not None:
            recent = [*self._writes.recent(now), *self._fallback.recent_writes(now)]
            self._pending.written = [(at, weight, WriteKind.UNRESERVED) for at, weight in recent]
        self._pending.drain_into(report, now)
        return report

    async def _exchange(self) -> None:
        self._last_exchange_at, self._called_since_retry = self._clock.monotonic(), False
        report = self._report(self._last_exchange_at)
        try:
            grant = PermitGrant.parse(await self._store.exchange(report.arguments()))
        except StoreUnavailableError as error:
            self._on_store_unavailable(error, report)
        else:
            self._on_grant(grant, report)

    def _on_grant(self, grant: PermitGrant, report: Report) -> None:
        now = self._clock.monotonic()
        grant.log_set_back(self._channel)
        if grant.epoch != self._epoch:
            self._return_available()
            self._pending.epoch_changed()
        was_rate, was_paused = self._rate, self._paused_until
        self._synced, self._epoch, self._rate = True, grant.epoch, grant.rate
        self._half_open, self._paused_until = grant.half_open, max(now + grant.pause, self._pending.retry_after_until)
        # A rejection during this exchange is not answered yet.
        rejected = self._pending.has_rejections(now)
        self._fresh_until = -math.inf if rejected else now + _UNLIMITED_TTL
        self._tickets = grant.tickets(now)
        self._processes = max(1, grant.processes)
        self._queue.available += grant.granted
        if rejected:
            self._return_available()
        local, self._fallback = self._fallback, None
        self._grant_ready()
        if self._writes is not None:
            self._writes.serve(grant, self._last_exchange_at)
        if grant.rate is None or grant.half_open or self._writes is not None:
            self._return_available()  # with a configured rate, what no text needs now would keep others waiting
        if local is not None:
            _logger.warning("%s limit: Redis answers again; the limit is shared again", self._channel)
            local.abort(FallbackEndedError)
        if report.rejected or report.retry_after:
            self._events.paused(was_paused, self._paused_until, now)
        self._events.rate_changed(self._rate, cut=was_rate is None or (self._rate or math.inf) < was_rate)

    def _on_store_unavailable(self, error: StoreUnavailableError, report: Report) -> None:
        """Continue with a local limiter, or end the waiting calls if `required` says so."""
        now = self._clock.monotonic()
        self._retry_at = now + self._rng.get().uniform(*_RETRY_DELAY)
        self._pending.restore_rejections(report)
        if self._fallback is not None:
            return
        if self._required and error.refused:
            self._queue.abort(lambda: ConfigurationError(f"shared: {error}"))
            if self._writes is not None:
                self._writes.abort(lambda: ConfigurationError(f"shared: {error}"), closing=False)
            return
        _logger.warning(
            "%s limit: Redis cannot be used (%s); this process continues at its own recent share", self._channel, error
        )
        self._outages += 1
        share = self._recent_share(now)
        self._fallback = fallback = FallbackLimiter(self._local_limiter(share), self._outages)
        self._queue.take_all()
        self._pending.unused = 0
        self._tickets.clear()
        paused = max(self._paused_until - now, report.retry_after)
        if report.rejected:
            fallback.rejected(Permit(1, 0, refundable=True), max(0.0, paused))
        elif paused > 0:
            fallback.pause(paused)
        elif share is not None and self._writes is None:
            # The permits that this process would have received while it waited for the answer.
            self._queue.available = int(share * (now - self._last_exchange_at))
            self._queue.serve(self._grace_permit)
            self._queue.take_all()
        self._queue.release_all()
        if self._writes is not None:
            self._writes.suspend()

    def _grace_permit(self, weight: int, _lane: Lane) -> Permit:
        return Permit(weight, -1, refundable=True)  # belongs to no outage, so its outcome is ignored

    def _recent_share(self, now: float) -> float | None:
        """Return the recent rate of this process; None for unlimited."""
        if not self._synced:
            return self._fallback_rate or self._ceiling
        processes = None if self._writes is None else self._processes
        return share_of(self._rate, self._recent_grants.per_second(now), processes)
