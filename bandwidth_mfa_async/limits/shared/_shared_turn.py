"""What a process writes under a configured rate that it shares."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import evolve

from .._lanes import was_granted
from .._permit import Permit
from .._write_window import MARGIN, window_limits
from ._fallback import FallbackEndedError
from ._grant_queue import GrantQueue, GrantWaiter
from ._pending_report import WriteKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ..._clock import Clock
    from ..._config import Rate
    from ..._validation import Lane
    from .._permit import Turn
    from ._grant import PermitGrant, Report
    from ._pending_report import PendingReport

# Seconds after which a reserved write is void. The script counts it for one second more than `PERMIT_TTL` there.
_RESERVATION_TTL: Final = 9.0
_WRITTEN_DELAY: Final = 0.25  # seconds until a write is reported


class SharedTurn:
    """The right of one attempt to write its text, under a permit of the shared state.

    The permit only paces the attempts. Once the attempt has a connection, it reserves its write in the shared windows.

    Args:
        writes: reserves the writes of the channel.
        weight: segments of the text.
        lane: the lane in which the attempt waits.
        outage_turn: the turn of the limiter that replaces the shared one during an outage; None if it does not.
    """

    __slots__ = ("_lane", "_open", "_valid_until", "_weight", "_writes", "outage_turn")

    def __init__(self, writes: SharedWrites, weight: int, lane: Lane, outage_turn: Turn | None = None) -> None:
        self._writes = writes
        self._weight = weight
        self._lane: Lane = lane
        self._open = True
        self._valid_until = -math.inf
        self.outage_turn = outage_turn

    def try_reserve(self) -> bool:
        """Return whether the text may be written now."""
        if self.outage_turn is not None:
            return self.outage_turn.try_reserve()
        return self._writes.clock.monotonic() < self._valid_until

    async def reserve(self) -> None:
        """Wait until the text may be written."""
        while not self.try_reserve():
            try:
                if self.outage_turn is not None:
                    await self.outage_turn.reserve()
                elif await self._writes.reserve(self._weight, self._lane):
                    self._valid_until = self._writes.reserved_at + _RESERVATION_TTL
                else:
                    permit = await self._writes.acquire(self._weight, self._lane)
                    if isinstance(permit.turn, SharedTurn):
                        self.outage_turn = permit.turn.outage_turn
            except FallbackEndedError:
                self.outage_turn = None

    def written(self) -> None:
        """Report that the text is written; later calls have no effect."""
        if not self._open:
            return
        self._open = False
        if self.outage_turn is not None:
            self.outage_turn.written()
        else:
            self._writes.written(self._weight, reserved=self._valid_until > -math.inf)

    def release(self) -> None:
        """Report that the text will not be written."""
        if not self._open:
            return
        self._open = False
        if self.outage_turn is not None:
            self.outage_turn.release()
        elif self._valid_until > -math.inf:
            self._writes.give_back(self._weight)


class SharedWrites:
    """Reserves the writes of this process, and knows what it wrote within the longest window of its rate.

    Args:
        rate: the configured rate.
        clock: the source of time.
        acquire: waits for a permit.
        pending: receives the reports of writes.
        flush: schedules the next report within so many seconds.
    """

    def __init__(
        self,
        rate: Rate,
        clock: Clock,
        acquire: Callable[[int, Lane], Coroutine[None, None, Permit]],
        pending: PendingReport,
        flush: Callable[[float], None],
    ) -> None:
        self.clock = clock
        self.acquire = acquire
        self._pending = pending
        self._flush = flush
        self._is_suspended = False
        # The attempts that are ready to write, and when those that did not fit may ask again.
        self._ready = GrantQueue()
        self._ready_at = -math.inf
        self.reserved_at = -math.inf
        """When the latest reservations were made, or earlier."""
        self._abort_error: Callable[[], BaseException] | None = None
        limits = window_limits(rate)
        self.windows = ",".join(f"{count}:{seconds:.3f}" for count, seconds in limits)
        """The windows of the rate, as the script's argument."""
        self._limit = min(count for count, _ in limits)
        self._length = max(seconds for _, seconds in limits) + MARGIN
        self._writes: deque[tuple[float, int]] = deque()

    def with_turn(self, permit: Permit, lane: Lane) -> Permit:
        """Return a permit with a turn that reserves its write here, or, if it has one of an outage, outlasts that."""
        return evolve(permit, turn=SharedTurn(self, permit.weight, lane, permit.turn))

    async def reserve(self, weight: int, lane: Lane) -> bool:
        """Wait until a text may be written, in the order of the lanes; return False if Redis is not available.

        Raises:
            BaseException: the error of `abort`, after it was called for good.
        """
        if self._abort_error is not None:
            raise self._abort_error()
        if self._is_suspended:
            return False
        waiter = GrantWaiter(asyncio.get_running_loop().create_future(), weight, lane)
        self._ready.append(waiter)
        self._flush(math.inf)  # only so that `due` is looked at
        try:
            await waiter.future
        except BaseException:
            if was_granted(waiter.future):
                if waiter.permit is not None:
                    self.give_back(weight)
            else:
                self._ready.remove(waiter)
            raise
        return waiter.permit is not None

    def due(self, latest: float) -> float:
        """Return when to ask for the texts that are ready, at `latest`; infinity if there is none."""
        return min(self._ready_at, latest) if self._ready else math.inf

    def request(self, report: Report) -> None:
        """Ask for the texts that are ready."""
        report.windows = self.windows
        report.request_writes(self._ready)

    def serve(self, grant: PermitGrant, asked_at: float) -> None:
        """Let the attempts write whose texts are in the windows now.

        Args:
            grant: the answer.
            asked_at: when the exchange began.
        """
        self.reserved_at = asked_at
        self._is_suspended = False
        self._ready_at = self.clock.monotonic() + grant.writes_wait if grant.writes_wait > 0 else -math.inf
        # What was reserved for a text that no window holds must not be divided among lighter ones.
        is_heavy = grant.writes > self._limit
        if not is_heavy or self._ready.head_shortfall() == grant.writes:
            self._ready.available += grant.writes
            self._ready.serve(lambda weight, _lane: Permit(weight, grant.epoch, refundable=False))
            left = self._ready.take_all()
        else:
            left = grant.writes
        if left:  # their attempts were cancelled meanwhile
            self.give_back(left)

    def suspend(self) -> None:
        """Let every attempt ask elsewhere until the next `serve`: Redis is not available."""
        self._is_suspended = True
        self._ready_at = -math.inf
        self._ready.release_all()

    def abort(self, make_error: Callable[[], BaseException], *, closing: bool) -> None:
        """Give every attempt that waits a separate error, and every later one if the client is closing."""
        self._abort_error = make_error if closing else None
        self._ready.abort(make_error)

    def written(self, weight: int, *, reserved: bool) -> None:
        """Count a write."""
        now = self.clock.monotonic()
        self._add(now, weight)
        self._report(now, weight, WriteKind.RESERVED if reserved else WriteKind.UNRESERVED, _WRITTEN_DELAY)

    def give_back(self, weight: int) -> None:
        """Give back a reservation whose text will not be written."""
        self._report(self.clock.monotonic(), weight, WriteKind.GIVEN_BACK, 0.0)

    def _report(self, at: float, weight: int, kind: WriteKind, within: float) -> None:
        if not self._is_suspended:  # after an outage all recent writes are reported
            self._pending.written.append((at, weight, kind))
            self._flush(within)

    def _add(self, now: float, weight: int) -> None:
        while self._writes and self._writes[0][0] <= now - self._length:
            self._writes.popleft()
        self._writes.append((now, weight))

    def recent(self, now: float) -> Iterable[tuple[float, int]]:
        """Return the times and weights of the writes that count now."""
        return [(at, weight) for at, weight in self._writes if at > now - self._length]
