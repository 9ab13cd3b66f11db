"""The permit and the protocol that every limiter implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from ..errors import Delivery, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._validation import Lane


@frozen
class Permit:
    """The right to begin one attempt. Report the outcome to the limiter that granted it.

    Attributes:
        weight: messages (segments) that the attempt counts as.
        epoch: the limiter's epoch when it was granted; distinguishes late rejections from new ones.
        refundable: whether the permit was taken from a rate, so that a refund goes back to it.
        turn: with a configured rate, decides when the text may be written; None without.
    """

    weight: int
    epoch: int
    refundable: bool
    turn: Turn | None = field(default=None, eq=False)


class Turn(Protocol):
    """The right of one attempt to write its text, which it uses once it has a connection."""

    def try_reserve(self) -> bool:
        """Return whether the text may be written now."""
        ...

    async def reserve(self) -> None:
        """Wait until the text may be written."""

    def written(self) -> None:
        """Report that the text is written; later calls have no effect."""

    def release(self) -> None:
        """Report that the text will not be written."""


class Limiter(Protocol):
    """The limiter of one channel as the client sees it, local or shared.

    Every permit ends in exactly one of `accepted`, `rejected` or `refund`, or in none of them (any other answer, or no
    answer).
    """

    def try_acquire(self, weight: int = 1, lane: Lane = "interactive") -> Permit | None:
        """Return a permit if none has to be waited for, else None."""

    async def acquire(self, weight: int = 1, lane: Lane = "interactive", *, deadline: float | None = None) -> Permit:
        """Wait for a permit."""
        ...

    def refund(self, permit: Permit) -> None:
        """Return a permit whose attempt was not sent."""

    def accepted(self, permit: Permit) -> None:
        """Record that the service accepted the message."""

    def rejected(self, permit: Permit, retry_after: float | None) -> None:
        """Record that the service answered 429."""

    def abort(self, make_error: Callable[[], BaseException]) -> None:
        """End every wait, current and future, with an error."""


def deadline_error(channel: str, wait: float) -> RateLimitError:
    """Return the error for a call whose deadline comes before its permit."""
    return RateLimitError(
        f"the {channel} limit has no permit before the call's deadline; send later or allow a longer timeout",
        None,
        Delivery.NOT_SENT,
        attempts=0,
        retry_after=wait,
        local=True,
    )
