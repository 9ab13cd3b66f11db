"""Delays that make a request that asks nothing last as long as one that asks the service."""

from __future__ import annotations

import secrets
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .._clock import sleep_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from .._clock import Clock

_KEPT: Final = 64


class Pace:
    """The durations of the latest requests.

    Args:
        clock: the source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    @contextmanager
    def measured(self) -> Generator[None]:
        """Measure the body."""
        began = self._clock.monotonic()
        yield
        self._seconds.append(self._clock.monotonic() - began)

    async def imitate(self) -> None:
        """Wait as long as one of the latest requests took, chosen at random; not at all before the first."""
        if self._seconds:
            await sleep_until(self._clock, self._clock.monotonic() + secrets.choice(self._seconds))
