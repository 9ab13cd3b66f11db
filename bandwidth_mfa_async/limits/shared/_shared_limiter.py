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

_FLUSH_AFTER: Final = 0.1  # seconds after which counts are reported even if nothing is wanted
_FRESH_FOR: Final = 1.0  # how long "nothing is limited" is believed without asking again
_POLL: Final = 1.0  # how long a slot far away is waited for before asking whether things have changed
_RETRY: Final = (0.5, 1.0)  # how long a lost store is left alone
_SEED: Final = 0.8  # with what share of the last known rate an empty Redis begins
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
        self._alone(None if rate is None else rate.per_second)  # checks the values
        self._store = store
        self._ceiling = None if rate is None else rate.per_second
        self._events = LimitEvents(channel, emit, self._ceiling)
        self._fallback_rate = fallback_rate
        self._expires = expires
        self._required = required
        self._process = secrets.token_hex(6)
        self._rng = random.Random()  # noqa: S311 - spreads retries
        self._closed: Callable[[], BaseException] | None = None
        # The shared state as the last answer told it.
        self._heard = False
        self._fresh_until = -math.inf
        self._rate: float | None = None
        self._epoch = 0
        self._half_open = False
        self._paused_until = -math.inf
        self._tickets: dict[str, tuple[float, float]] = {}
        self._queue = GrantQueue()
        self._unreported = PendingReport()
        self._task = BackgroundTask(clock, self._due, self._exchange)
        self._asked_at = -math.inf
        # Outages.
        self._shares = SlidingWindowCounter(_SHARE_WINDOW)
        self._fallback: FallbackLimiter | None = None
        self._outages = 0
        self._retry_at = -math.inf
        self._used = False

    def __repr__(self) -> str:
        state = "unlimited" if self._rate is None else f"rate={self._rate:.4g}/s"
        local = "" if self._fallback is None else f", without the shared state: {self._fallback!r}"
        heard = "" if self._heard else ", not asked yet"
        about = f"{state}{heard}, epoch={self._epoch}, {self._queue!r}{local}"
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
        if self._closed is not None:
            raise self._closed()
        if self._fallback is not None:
            self._used = True
            self._task.look()
            return self._fallback.try_acquire(weight, lane)
        if self._queue.must_wait(lane):
            return None
        now = self._clock.monotonic()
        if self._rate is None:
            if now < self._fresh_until and now >= self._paused_until:
                self._shares.add(now, weight)
                return Permit(weight, self._epoch, paced=False)
            return None
        return self._leased(weight) if self._queue.take(weight) else None

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
            if self._closed is not None:
                raise self._closed()
            local = self._fallback
            if local is None:
                permit = await self._in_line(weight, lane, deadline)
                continue
            self._used = True
            self._task.look()
            with contextlib.suppress(FallbackEndedError):
                permit = await local.acquire(weight, lane, deadline)
        self._events.waited(lane, self._clock.monotonic() - began)
        return permit

    def refund(self, permit: Permit) -> None:
        """Take back a permit whose attempt never left this process; the next in line gets it."""
        if self._fallback is not None:
            self._fallback.refund(permit)
        elif permit.paced and permit.epoch >= 0 and self._closed is None:
            if permit.epoch == self._epoch and not self._half_open:
                self._queue.in_hand += permit.weight
                self._serve()
            else:
                self._unreported.back += permit.weight
            self._flush(0.0 if self._half_open else _FLUSH_AFTER)

    def accepted(self, permit: Permit) -> None:
        """Learn that the service took the message."""
        if self._fallback is not None:
            self._fallback.accepted(permit)
        elif permit.epoch >= 0:
            self._unreported.accept(permit.weight, current=permit.epoch == self._epoch)
            self._flush(0.0 if self._half_open else _FLUSH_AFTER)

    def refused(self, permit: Permit, retry_after: float | None) -> None:
        """Learn that the service answered 429.

        Args:
            permit: the attempt's.
            retry_after: what the service asked for, in seconds; None when it asked for nothing.
        """
        now = self._clock.monotonic()
        if retry_after is not None and retry_after > 0:  # a NaN is not
            self._unreported.pause(now + min(float(retry_after), self._max_pause))
        self._unreported.refuse(permit.epoch)
        if self._fallback is not None:
            self._fallback.refused(permit, retry_after)
            return
        # Nothing leaves before the answer to this is known.
        self._put_back()
        self._fresh_until = -math.inf
        before = self._paused_until
        self._paused_until = max(before, self._unreported.asked_until)
        self._events.gate(before, self._paused_until, now)
        self._flush(0.0)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, now and later, with an error of its own: the client is closing."""
        self._closed = make_error
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

    async def _in_line(self, weight: int, lane: Lane, deadline: float | None) -> Permit | None:
        """Wait for a permit; None when the link was lost meanwhile."""
        if deadline is not None and self._clock.monotonic() + (wait := self._least_wait(weight, lane)) > deadline:
            raise deadline_error(self._channel, wait)
        waiter = GrantWaiter(asyncio.get_running_loop().create_future(), weight, lane)
        self._queue.append(waiter)
        self._task.look()
        timer = None if deadline is None else self._clock.call_at(deadline, partial(self._expire, waiter))
        try:
            served = await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                if waiter.permit is not None:
                    self.refund(waiter.permit)
            elif self._queue.remove(waiter):
                self._serve()  # the next in line may be lighter
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not served:
            raise deadline_error(self._channel, self._least_wait(weight, lane))
        return waiter.permit

    def _leased(self, weight: int) -> Permit:
        self._shares.add(self._clock.monotonic(), weight)
        return Permit(weight, self._epoch, paced=self._rate is not None)

    def _serve(self) -> None:
        """Hand out what is there, in order."""
        self._queue.serve(self._leased)
        if self._queue.in_hand and not self._queue:
            self._flush(_FLUSH_AFTER)

    def _expire(self, waiter: GrantWaiter) -> None:
        if self._queue.remove(waiter) and not waiter.future.done():
            waiter.future.set_result(False)
            self._serve()

    def _least_wait(self, weight: int, lane: Lane) -> float:
        pause = max(0.0, self._paused_until - self._clock.monotonic())
        if self._ceiling is None or self._rate is None:
            return pause
        wanted = self._queue.needed(weight, lane)
        # Redis may have some saved up: up to a batch is not counted as a wait.
        return pause + max(0.0, wanted - 1.0 - 0.15 * self._ceiling) / self._ceiling

    # Talking to the shared state.

    def _put_back(self) -> None:
        self._unreported.back += self._queue.give_up()

    def _flush(self, after: float) -> None:
        """See to it that what is to be reported is, so many seconds from now."""
        self._unreported.due = min(self._unreported.due, self._clock.monotonic() + after)
        self._task.look()

    def _due(self) -> float:
        """Return when the next exchange is needed; infinity for never."""
        if self._fallback is not None:
            # With nobody here the store is left alone until the next caller comes.
            return self._retry_at if self._used or self._fallback.waiting else math.inf
        due = self._unreported.due
        for lane, want in zip(LANES, self._queue.wanted(), strict=True):
            if want > 0:
                slot = self._tickets.get(lane, (0.0, -math.inf))[1]
                due = min(due, slot, self._asked_at + _POLL)
        return due

    def _report(self, now: float) -> Report:
        """Take what is to be reported."""
        if not self._queue:
            self._put_back()
        if self._rate is None:
            self._unreported.back = 0
        interactive, bulk = self._queue.wanted()
        first = self._queue.first_needs()
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
            seed=_SEED * self._rate if self._rate is not None and self._heard else 0.0,
            expires=self._expires,
            process=self._process,
        )
        self._unreported.move_to(report, now)
        return report

    async def _exchange(self) -> None:
        self._asked_at = now = self._clock.monotonic()
        self._used = False
        report = self._report(now)
        try:
            lease = PermitGrant.parse(await self._store.exchange(report.arguments()))
        except StoreUnavailableError as error:
            self._lost(error, report)
        else:
            self._found(lease, report)

    def _found(self, lease: PermitGrant, report: Report) -> None:
        now = self._clock.monotonic()
        if lease.epoch != self._epoch:
            self._put_back()
            self._unreported.epoch_changed()
        was_rate, was_paused = self._rate, self._paused_until
        self._heard, self._epoch, self._rate = True, lease.epoch, lease.rate
        self._half_open, self._paused_until = lease.half_open, max(now + lease.pause, self._unreported.asked_until)
        # A refusal that came during this exchange is still to be answered.
        refused = self._unreported.has_news(now)
        self._fresh_until = -math.inf if refused else now + _FRESH_FOR
        self._tickets = {
            lane: (ticket, now + wait)
            for lane, ticket, wait in (
                ("interactive", lease.interactive_ticket, lease.interactive_wait),
                ("bulk", lease.bulk_ticket, lease.bulk_wait),
            )
            if ticket > 0
        }
        self._queue.in_hand += lease.granted
        if refused:
            self._put_back()
        local, self._fallback = self._fallback, None
        self._serve()
        if lease.rate is None or lease.half_open:
            self._put_back()
        if local is not None:
            _logger.warning("%s limit: Redis answers again, the limit is shared", self._channel)
            local.abort(FallbackEndedError)
        if report.bad or report.retry_after:
            self._events.gate(was_paused, self._paused_until, now)
        self._events.rate(self._rate, cut=was_rate is None or (self._rate or math.inf) < was_rate)

    def _lost(self, error: StoreUnavailableError, report: Report) -> None:
        """Go on alone, or end the calls that wait where that was asked for."""
        now = self._clock.monotonic()
        self._retry_at = now + self._rng.uniform(*_RETRY)
        self._unreported.keep_refusals(report)
        if self._fallback is not None:
            return
        if self._required and error.refused:
            self._queue.abort(lambda: ConfigurationError(f"shared: {error}"))
            return
        _logger.warning(
            "%s limit: Redis cannot be used (%s); this process goes on at its own recent share", self._channel, error
        )
        self._outages += 1
        share = self._share(now)
        self._fallback = fallback = FallbackLimiter(self._alone(share), self._outages)
        self._queue.give_up()
        self._unreported.back = 0
        self._tickets.clear()
        paused = max(self._paused_until - now, report.retry_after)
        if report.bad:
            fallback.refused(Permit(1, 0, paced=True), max(0.0, paused))
        elif paused > 0:
            fallback.close_gate(paused)
        elif share is not None:
            # What this process would have been given while it waited for the answer.
            self._queue.in_hand = int(share * (now - self._asked_at))
            self._queue.serve(self._owed)
            self._queue.give_up()
        self._queue.release()

    def _owed(self, weight: int) -> Permit:
        return Permit(weight, -1, paced=True)  # of no outage: its outcome is nobody's

    def _share(self, now: float) -> float | None:
        """Return what this process was given a second lately; None for unlimited."""
        if not self._heard:
            return self._fallback_rate or self._ceiling
        if self._rate is None:
            return None
        return min(self._rate, max(self._shares.per_second(now), _MIN_SHARE * self._rate))

    def _alone(self, share: float | None) -> ChannelLimiter:
        """Return a limiter for this process alone."""
        return ChannelLimiter(
            self._channel,
            rate=None if share is None else Rate(share),
            adaptive=self._adaptive,
            clock=self._clock,
            max_pause=self._max_pause,
        )
