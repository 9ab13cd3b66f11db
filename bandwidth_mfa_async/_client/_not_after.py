"""`not_after`: when a code is no longer wanted, so that a task that is delivered hours later is not sent."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, NotSentError
from ._observer import CallEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from ..errors import Delivery, RequestError


class NotAfter:
    """Ends a call that would send later than wanted. An observer of a call without a key.

    Args:
        value: an aware `datetime`, seconds of Unix time, or None.
        clock: the time source.

    Raises:
        ConfigurationError: the value is neither.
    """

    def __init__(self, value: object, clock: Clock) -> None:
        self.maybe_delivered = False
        self._clock = clock
        self._latest: float = _seconds(value)

    @property
    def is_over(self) -> bool:
        """Whether the code is no longer wanted."""
        return self._clock.time() >= self._latest

    def check(self) -> None:
        """Raise `CallEnded` if the code is no longer wanted."""
        if self.is_over:
            raise CallEnded(
                NotSentError("not sent, because not_after is over", attempts=0, retry_stopped_by="not_after")
            )

    @property
    def before_wait(self) -> None:
        """None: there is nothing to wait for."""
        return

    @property
    def check_before_write(self) -> Callable[[], None]:
        """The check at the moment of the write."""
        return self.check

    async def before_attempt(self) -> bool:
        """Check before an attempt."""
        self.check()
        return True

    def may_retry(self) -> bool:
        """Return True: the check is made before the next attempt."""
        return True

    def attempt_failed(self, error: RequestError) -> None:
        """Record nothing."""

    def interrupted(self, delivery: Delivery) -> None:
        """Record nothing."""


def _seconds(value: object) -> float:
    if value is None:
        return math.inf
    if isinstance(value, datetime):
        if value.tzinfo is not None and value.utcoffset() is not None:
            return value.timestamp()
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ConfigurationError(
        "not_after: must be a datetime with a time zone, like datetime.now(UTC) + timedelta(minutes=5), or seconds of "
        "Unix time"
    )
