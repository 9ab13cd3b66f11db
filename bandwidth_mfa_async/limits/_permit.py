"""What a limiter hands out, and what every limiter can be asked. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from ..errors import Delivery, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._validation import Lane


@frozen
class Permit:
    """The right to make one attempt; report its outcome to the limiter that gave it.

    Attributes:
        weight: how many messages (segments) it stands for.
        epoch: the limiter's epoch when it was given, so that late refusals are told from new ones.
        refundable: whether it was taken from a rate, and so can be given back to it.
    """

    weight: int
    epoch: int
    refundable: bool


class Limiter(Protocol):
    """One channel's limiter as the client sees it, whether of this process or shared with others.

    Every permit ends in exactly one of `accepted`, `refused`, `refund`, or nothing (another answer, or none).
    """

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if that needs no waiting."""

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Wait for a permit."""
        ...

    def refund(self, permit: Permit) -> None:
        """Take back a permit whose attempt never left this process."""

    def accepted(self, permit: Permit) -> None:
        """Learn that the service took the message."""

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Learn that the service answered 429."""

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, now and later, with an error."""


def deadline_error(channel: str, wait: float) -> RateLimitError:
    """Return the error for a call whose time does not allow the wait."""
    return RateLimitError(
        f"the {channel} limit has no permit within the call's time; send later, or allow a longer timeout",
        None,
        Delivery.NOT_SENT,
        attempts=0,
        retry_after=wait,
        local=True,
    )
