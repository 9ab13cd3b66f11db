"""What takes over while the shared state cannot be reached: a limiter of this process's own, for one outage. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._permit import Permit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._validation import Lane
    from .._channel_limiter import ChannelLimiter

# Permits of an outage carry epochs below zero: so many for each outage, counted down.
_EPOCHS_PER_OUTAGE: Final = 1_000_000


class FallbackEndedError(Exception):
    """The shared state is back: whoever waits here joins the shared line again."""


class FallbackLimiter:
    """A `ChannelLimiter` whose permits can be told from the shared ones and from those of other outages.

    Args:
        limiter: at this process's own share.
        outage: its number, from 1.
    """

    def __init__(self, limiter: ChannelLimiter, outage: int) -> None:
        self._limiter = limiter
        self._outage = outage

    def __repr__(self) -> str:
        return f"FallbackLimiter({self._limiter!r})"

    @property
    def rate(self) -> float | None:
        """Messages (segments) a second of this process."""
        return self._limiter.rate

    @property
    def waiting(self) -> int:
        """How many callers wait here."""
        return self._limiter.waiting

    def try_acquire(self, weight: int, lane: Lane) -> Permit | None:
        """Return a permit if that needs no waiting."""
        permit = self._limiter.try_acquire(weight, lane)
        return None if permit is None else self._tag(permit)

    async def acquire(self, weight: int, lane: Lane, deadline: float | None) -> Permit:
        """Wait for a permit; raises `FallbackEndedError` when the outage is over."""
        return self._tag(await self._limiter.acquire(weight, lane, deadline=deadline))

    def refund(self, permit: Permit) -> None:
        """Take back a permit, if it is one of this outage's."""
        if self._owns(permit):
            self._limiter.refund(self._untag(permit))

    def accepted(self, permit: Permit) -> None:
        """Learn that the service took the message, if the permit is one of this outage's."""
        if self._owns(permit):
            self._limiter.accepted(self._untag(permit))

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Learn that the service answered 429, whoever gave the permit: what was refused then is refused now."""
        local = (
            self._untag(permit) if self._owns(permit) else Permit(permit.weight, self._limiter.epoch, refundable=True)
        )
        self._limiter.rejected(local, retry_after)

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long, and learn nothing from that."""
        self._limiter.rejected(Permit(1, -1, refundable=True), seconds)

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, now and later, with an error."""
        self._limiter.abort(make_error)

    def _owns(self, permit: Permit) -> bool:
        return permit.epoch < 0 and -permit.epoch // _EPOCHS_PER_OUTAGE == self._outage

    def _tag(self, permit: Permit) -> Permit:
        return Permit(permit.weight, -(self._outage * _EPOCHS_PER_OUTAGE + permit.epoch), refundable=permit.refundable)

    def _untag(self, permit: Permit) -> Permit:
        return Permit(permit.weight, -permit.epoch % _EPOCHS_PER_OUTAGE, refundable=permit.refundable)
