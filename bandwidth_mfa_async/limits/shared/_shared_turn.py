"""What a process writes under a configured rate that it shares."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .._write_window import MARGIN, window_limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..._clock import Clock
    from ..._config import Rate
    from .._permit import Permit

# Seconds after which an unused permit is void. The script counts it for one second more than `PERMIT_TTL` there.
_PERMIT_TTL: Final = 9.0


class SharedTurn:
    """The right of one attempt to write its text, under a permit of the shared state.

    The shared state counts a permit until the write is reported, so a late write needs no wait. Only a permit that is
    too old, which the shared state counts as written, is replaced by another one.

    Args:
        clock: measures the age of the permit.
        requested_at: when the permit was requested, or earlier.
        weight: segments of the text.
        acquire: waits for another permit.
        on_write: called once when the text is written.
    """

    __slots__ = ("_acquire", "_clock", "_on_write", "_open", "_weight", "requested_at")

    def __init__(
        self,
        clock: Clock,
        requested_at: float,
        weight: int,
        acquire: Callable[[], Awaitable[Permit]],
        on_write: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self.requested_at = requested_at
        self._weight = weight
        self._acquire = acquire
        self._on_write = on_write
        self._open = True

    def try_reserve(self) -> bool:
        """Return whether the text may be written now."""
        return self._clock.monotonic() - self.requested_at < _PERMIT_TTL

    async def reserve(self) -> None:
        """Wait until the text may be written."""
        while not self.try_reserve():
            await self._acquire()
            self.requested_at = self._clock.monotonic()

    def written(self) -> None:
        """Report that the text is written; later calls have no effect."""
        if self._open:
            self._open = False
            self._on_write(self._weight)

    def release(self) -> None:
        """Report that the text will not be written."""
        self._open = False


class OwnWrites:
    """What this process wrote within the longest window of its rate.

    Args:
        rate: the configured rate.
    """

    def __init__(self, rate: Rate) -> None:
        limits = window_limits(rate)
        self.windows = ",".join(f"{count}:{seconds:.3f}" for count, seconds in limits)
        """The windows of the rate, as the script's argument."""
        self._length = max(seconds for _, seconds in limits) + MARGIN
        self._writes: deque[tuple[float, int]] = deque()

    def add(self, now: float, weight: int) -> None:
        """Count a write."""
        while self._writes and self._writes[0][0] <= now - self._length:
            self._writes.popleft()
        self._writes.append((now, weight))

    def recent(self, now: float) -> Iterable[tuple[float, int]]:
        """Return the times and weights of the writes that count now."""
        return [(at, weight) for at, weight in self._writes if at > now - self._length]
