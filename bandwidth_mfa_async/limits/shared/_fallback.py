"""The local limiter that replaces the shared one during one outage of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import evolve

from ..._config import Rate
from .._channel_limiter import ChannelLimiter
from .._permit import Permit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._clock import Clock
    from ..._validation import Lane

# Permits of an outage have negative epochs. Each outage uses a range of this size.
_EPOCHS_PER_OUTAGE: Final = 1_000_000


_MIN_SHARE: Final = 0.05  # of the shared rate, for a process that sent nothing recently
_SPARE_SHARE: Final = 0.1  # of a configured rate, which is divided among all processes


def share_of(rate: float | None, recent: float, processes: int | None) -> float | None:
    """Return a process's share of the shared rate during an outage; None for unlimited.

    Args:
        rate: the shared rate.
        recent: the recent rate of this process.
        processes: with a configured rate, the number of processes, so that their shares add up to the rate as far as
            they know of each other; None without.
    """
    if rate is None:
        return None
    if processes is not None:
        return min(rate, (1.0 - _SPARE_SHARE) * recent + _SPARE_SHARE * rate / processes)
    return min(rate, max(recent, _MIN_SHARE * rate))


def make_local_limiter(
    channel: str, share: float | None, *, adaptive: bool, clock: Clock, max_pause: float
) -> ChannelLimiter:
    """Return a limiter for this process alone."""
    # Over ten seconds, because a rate holds whole messages.
    rate = None if share is None else Rate(share * 10.0, per=10.0)
    return ChannelLimiter(channel, rate=rate, adaptive=adaptive, clock=clock, max_pause=max_pause)


class FallbackEndedError(Exception):
    """The shared state is available again: the waiting caller returns to the shared queue."""


class FallbackLimiter:
    """A `ChannelLimiter` whose permits are distinguishable from shared ones and from those of other outages.

    Args:
        limiter: a limiter at this process's own share.
        outage: the number of the outage, from 1.
    """

    def __init__(self, limiter: ChannelLimiter, outage: int) -> None:
        self._limiter = limiter
        self._outage = outage

    def __repr__(self) -> str:
        return f"FallbackLimiter({self._limiter!r})"

    @property
    def rate(self) -> float | None:
        """The rate of this process in messages (segments) per second."""
        return self._limiter.rate

    @property
    def waiting(self) -> int:
        """The number of waiting callers."""
        return self._limiter.waiting

    def try_acquire(self, weight: int, lane: Lane) -> Permit | None:
        """Return a permit if none has to be waited for, else None."""
        permit = self._limiter.try_acquire(weight, lane)
        return None if permit is None else self._tag(permit)

    async def acquire(self, weight: int, lane: Lane, deadline: float | None) -> Permit:
        """Wait for a permit. Raise `FallbackEndedError` when the outage ends."""
        return self._tag(await self._limiter.acquire(weight, lane, deadline=deadline))

    def refund(self, permit: Permit) -> None:
        """Return a permit, if it belongs to this outage."""
        if self._owns(permit):
            self._limiter.refund(self._untag(permit))

    def accepted(self, permit: Permit) -> None:
        """Record that the service accepted the message, if the permit belongs to this outage."""
        if self._owns(permit):
            self._limiter.accepted(self._untag(permit))

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Record that the service answered 429. The origin of the permit does not matter: the limit is the same."""
        local = (
            self._untag(permit) if self._owns(permit) else Permit(permit.weight, self._limiter.epoch, refundable=True)
        )
        self._limiter.rejected(local, retry_after)

    def pause(self, seconds: float) -> None:
        """Grant nothing for this many seconds, without adapting the rate."""
        self._limiter.rejected(Permit(1, -1, refundable=True), seconds)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, current and future, with an error."""
        self._limiter.abort(make_error)

    def _owns(self, permit: Permit) -> bool:
        return permit.epoch < 0 and -permit.epoch // _EPOCHS_PER_OUTAGE == self._outage

    def _tag(self, permit: Permit) -> Permit:
        return evolve(permit, epoch=-(self._outage * _EPOCHS_PER_OUTAGE + permit.epoch))

    def _untag(self, permit: Permit) -> Permit:
        return evolve(permit, epoch=-permit.epoch % _EPOCHS_PER_OUTAGE)

    def recent_writes(self, now: float) -> list[tuple[float, int]]:
        """Return the times and weights of what was written and still counts."""
        return self._limiter.recent_writes(now)
