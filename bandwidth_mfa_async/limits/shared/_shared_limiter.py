"""One process's end of a limit that several share: what it reports and is granted, and how it goes on without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from ..._config import Rate
from ..._redis._fail_fast import StoreUnavailableError
from ..._validation import LANES, checked_count, checked_lane
from ...errors import ConfigurationError
from ...telemetry import LOGGER_NAME
from .._channel_limiter import ChannelLimiter
from .._events import LimitEvents
from .._lanes import was_granted
from .._permit import Permit, deadline_error
from .._sliding_window import SlidingWindowCounter
from ._background import BackgroundTask
from ._fallback import FallbackEndedError, FallbackLimiter
from ._grant import PermitGrant, Report
from ._grant_queue import GrantQueue, GrantWaiter
from ._pending_report import PendingReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._clock import Clock
    from ..._validation import Lane
    from ...telemetry import Event
    from ._grant import LimitStore

_FLUSH_DELAY: Final = 0.1  # seconds after which counts are reported even if nothing is shortfalls
_UNLIMITED_TTL: Final = 1.0  # how long "nothing is limited" is believed without asking again
_POLL_INTERVAL: Final = 1.0  # how long a slot far away is waited for before asking whether things have changed
_RETRY_DELAY: Final = (0.5, 1.0)  # how long a lost store is left alone
_SEED_SHARE: Final = 0.8  # with what share of the last known rate an empty Redis begins
_SHARE_WINDOW: Final = 2.0  # seconds over which a process's own share is measured
_MIN_SHARE: Final = 0.05  # of the whole rate, for a process that sent nothing lately

_logger = logging.getLogger(LOGGER_NAME)


class SharedLimiter:
    """A `Limiter` for one channel whose rate, gate and turns are kept elsewhere, for all processes together.

    While nothing is limited permits are free and only counts are reported. Else the weight of all who wait is asked
    for, and what is granted goes to them in order. When the store is lost a `ChannelLimiter` at this process's own
    recent share takes over, until the store is back.

    Args:
        channel: its name in events and errors.
        store: the way to the shared state.
        rate: the account's known limit, for all processes together.
        adaptive: learn from 429 answers.
        clock: where time comes from.
        emit: receives events.
        max_pause: the longest a Retry-After may close the gate, in seconds.
        fallback_rate: messages a second of this process while the store was never there.
        expires: seconds after which unused shared state is forgotten.
        required: whether a store that refuses us (its password, its version) is an error of the call.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named
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
        self._local_limiter(None if rate is None else rate.per_second)  # checks the values
        self._store = store
        self._ceiling = None if rate is None else rate.per_second
        self._events = LimitEvents(channel, emit, self._ceiling)
        self._fallback_rate = fallback_rate
        self._expires = expires
        self._required = required
        self._process_id = secrets.token_hex(6)
        self._rng = random.Random()  # noqa: S311 - spreads retries
        self._abort_error: Callable[[], BaseException] | None = None
        # The shared state as the last answer told it.
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
        # Outages.
        self._recent_grants = SlidingWindowCounter(_SHARE_WINDOW)
        self._fallback: FallbackLimiter | None = None
        self._outages = 0
        self._retry_at = -math.inf
        self._wanted = False

    def __repr__(self) -> str:
        state = "unlimited" if self._rate is None else f"rate={self._rate:.4g}/s"
        local = "" if self._fallback is None else f", without the shared state: {self._fallback!r}"
        synced = "" if self._synced else ", not asked yet"
        about = f"{state}{synced}, epoch={self._epoch}, {self._queue!r}{local}"
        return f"SharedLimiter({self._channel!r}, {about})"

    @property
    def rate(self) -> float | None:
        """Messages (segments) a second of all processes together; None while nothing is limited or known.

        During an outage this process's own.
        """
        return self._rate if self._fallback is None else self._fallback.rate

    @property
    def waiting(self) -> int:
        """How many callers of this process wait for a permit."""
        return len(self._queue) + (0 if self._fallback is None else self._fallback.waiting)

    @property
    def epoch(self) -> int:
        """How many times the shared rate was cut."""
        return self._epoch

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if that needs neither waiting nor asking, and overtakes nobody of this process.

        Raises:
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: what `abort` was given, after it.
        """
        if weight != 1 or lane not in LANES:
            checked_count("weight", weight)
            checked_lane(lane)
        if self._abort_error is not None:
            raise self._abort_error()
        if self._fallback is not None:
            self._wanted = True
            self._task.notify()
            return self._fallback.try_acquire(weight, lane)
        if self._queue.must_wait(lane):
            return None
        now = self._clock.monotonic()
        if self._rate is None:
            if now < self._fresh_until and now >= self._paused_until:
                self._recent_grants.add(now, weight)
                return Permit(weight, self._epoch, refundable=False)
            return None
        return self._make_permit(weight) if self._queue.take(weight) else None

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Return a permit, waiting for it as long as it takes or `deadline` allows.

        A cancelled caller leaves the line and loses nobody's place.

        Args:
            weight: how many messages (segments) the attempt stands for.
            lane: which line to wait in.
            deadline: in the clock's seconds; when the wait is known to be longer it is not begun.

        Raises:
            RateLimitError: with ``local=True``: there is no permit in time.
            ConfigurationError: the weight is not a whole number of at least 1, or there is no such lane.
            BaseException: what `abort` was given, from then on.
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
            self._wanted = True
            self._task.notify()
            with contextlib.suppress(FallbackEndedError):
                permit = await local.acquire(weight, lane, deadline)
        self._events.waited(lane, self._clock.monotonic() - began)
        return permit

    def refund(self, permit: Permit) -> None:
        """Take back a permit whose attempt never left this process; the next in line gets it."""
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
        """Learn that the service took the message."""
        if self._fallback is not None:
            self._fallback.accepted(permit)
        elif permit.epoch >= 0:
            self._pending.add_accepted(permit.weight, current=permit.epoch == self._epoch)
            self._flush(0.0 if self._half_open else _FLUSH_DELAY)

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Learn that the service answered 429.

        Args:
            permit: the attempt's.
            retry_after: what the service asked for, in seconds; None when it asked for nothing.
        """
        now = self._clock.monotonic()
        if retry_after is not None and retry_after > 0:  # a NaN is not
            self._pending.pause(now + min(float(retry_after), self._max_pause))
        self._pending.add_rejected(permit.epoch)
        if self._fallback is not None:
            self._fallback.rejected(permit, retry_after)
            return
        # Nothing leaves before the answer to this is known.
        self._return_available()
        self._fresh_until = -math.inf
        before = self._paused_until
        self._paused_until = max(before, self._pending.retry_after_until)
        self._events.paused(before, self._paused_until, now)
        self._flush(0.0)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, now and later, with an error of its own: the client is closing."""
        self._abort_error = make_error
        self._queue.abort(make_error)
        if self._fallback is not None:
            self._fallback.abort(make_error)
        self._task.abort()

    async def aclose(self) -> None:
        """Say what is left to say and close the link; waits should have been ended with `abort`."""
        try:
            await self._task.aclose()
            if self._fallback is None and self._due() < math.inf:
                with contextlib.suppress(StoreUnavailableError):
                    await self._store.exchange(self._report(self._clock.monotonic()).arguments())
        finally:
            await self._store.aclose()

    # The line of this process.

    async def _wait_in_queue(self, weight: int, lane: Lane, deadline: float | None) -> Permit | None:
        """Wait for a permit; None when the link was lost meanwhile."""
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
                self._grant_ready()  # the next in line may be lighter
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise deadline_error(self._channel, self._min_wait(weight, lane))
        return waiter.permit

    def _make_permit(self, weight: int) -> Permit:
        self._recent_grants.add(self._clock.monotonic(), weight)
        return Permit(weight, self._epoch, refundable=self._rate is not None)

    def _grant_ready(self) -> None:
        """Hand out what is there, in order."""
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
        shortfalls = self._queue.shortfall(weight, lane)
        # Redis may have some saved up: up to a batch is not counted as a wait.
        return pause + max(0.0, shortfalls - 1.0 - 0.15 * self._ceiling) / self._ceiling

    # Talking to the shared state.

    def _return_available(self) -> None:
        self._pending.unused += self._queue.take_all()

    def _flush(self, after: float) -> None:
        """See to it that what is to be reported is, so many seconds from now."""
        self._pending.due = min(self._pending.due, self._clock.monotonic() + after)
        self._task.notify()

    def _due(self) -> float:
        """Return when the next exchange is needed; infinity for never."""
        if self._fallback is not None:
            # With nobody here the store is left alone until the next caller comes.
            return self._retry_at if self._wanted or self._fallback.waiting else math.inf
        due = self._pending.due
        for lane, want in zip(LANES, self._queue.shortfalls(), strict=True):
            if want > 0:
                slot = self._tickets.get(lane, (0.0, -math.inf))[1]
                due = min(due, slot, self._last_exchange_at + _POLL_INTERVAL)
        return due

    def _report(self, now: float) -> Report:
        """Take what is to be reported."""
        if not self._queue:
            self._return_available()
        if self._rate is None:
            self._pending.unused = 0
        interactive, bulk = self._queue.shortfalls()
        first = self._queue.head_shortfall()
        report = Report(
            adaptive=self._adaptive,
            ceiling=self._ceiling or 0.0,
            want_interactive=interactive,
            head_interactive=first,
            ticket_interactive=self._tickets.get("interactive", (0.0, 0.0))[0],
            want_bulk=bulk,
            head_bulk=1 if interactive else first,
            ticket_bulk=self._tickets.get("bulk", (0.0, 0.0))[0],
            epoch=self._epoch,
            seed=_SEED_SHARE * self._rate if self._rate is not None and self._synced else 0.0,
            expires=self._expires,
            process=self._process_id,
        )
        self._pending.drain_into(report, now)
        return report

    async def _exchange(self) -> None:
        self._last_exchange_at = now = self._clock.monotonic()
        self._wanted = False
        report = self._report(now)
        try:
            grant = PermitGrant.parse(await self._store.exchange(report.arguments()))
        except StoreUnavailableError as error:
            self._on_store_unavailable(error, report)
        else:
            self._on_grant(grant, report)

    def _on_grant(self, grant: PermitGrant, report: Report) -> None:
        now = self._clock.monotonic()
        if grant.epoch != self._epoch:
            self._return_available()
            self._pending.epoch_changed()
        was_rate, was_paused = self._rate, self._paused_until
        self._synced, self._epoch, self._rate = True, grant.epoch, grant.rate
        self._half_open, self._paused_until = grant.half_open, max(now + grant.pause, self._pending.retry_after_until)
        # A refusal that came during this exchange is still to be answered.
        rejected = self._pending.has_rejections(now)
        self._fresh_until = -math.inf if rejected else now + _UNLIMITED_TTL
        self._tickets = {
            lane: (ticket, now + wait)
            for lane, ticket, wait in (
                ("interactive", grant.interactive_ticket, grant.interactive_wait),
                ("bulk", grant.bulk_ticket, grant.bulk_wait),
            )
            if ticket > 0
        }
        self._queue.available += grant.granted
        if rejected:
            self._return_available()
        local, self._fallback = self._fallback, None
        self._grant_ready()
        if grant.rate is None or grant.half_open:
            self._return_available()
        if local is not None:
            _logger.warning("%s limit: Redis answers again, the limit is shared", self._channel)
            local.abort(FallbackEndedError)
        if report.rejected or report.retry_after:
            self._events.paused(was_paused, self._paused_until, now)
        self._events.rate_changed(self._rate, cut=was_rate is None or (self._rate or math.inf) < was_rate)

    def _on_store_unavailable(self, error: StoreUnavailableError, report: Report) -> None:
        """Go on alone, or end the calls that wait where that was asked for."""
        now = self._clock.monotonic()
        self._retry_at = now + self._rng.uniform(*_RETRY_DELAY)
        self._pending.restore_rejections(report)
        if self._fallback is not None:
            return
        if self._required and error.refused:
            self._queue.abort(lambda: ConfigurationError(f"shared: {error}"))
            return
        _logger.warning(
            "%s limit: Redis cannot be used (%s); this process goes on at its own recent share", self._channel, error
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
        elif share is not None:
            # What this process would have been given while it waited for the answer.
            self._queue.available = int(share * (now - self._last_exchange_at))
            self._queue.serve(self._grace_permit)
            self._queue.take_all()
        self._queue.release_all()

    def _grace_permit(self, weight: int) -> Permit:
        return Permit(weight, -1, refundable=True)  # of no outage: its outcome is nobody's

    def _recent_share(self, now: float) -> float | None:
        """Return what this process was given a second lately; None for unlimited."""
        if not self._synced:
            return self._fallback_rate or self._ceiling
        if self._rate is None:
            return None
        return min(self._rate, max(self._recent_grants.per_second(now), _MIN_SHARE * self._rate))

    def _local_limiter(self, share: float | None) -> ChannelLimiter:
        """Return a limiter for this process alone."""
        return ChannelLimiter(
            self._channel,
            rate=None if share is None else Rate(share),
            adaptive=self._adaptive,
            clock=self._clock,
            max_pause=self._max_pause,
        )
