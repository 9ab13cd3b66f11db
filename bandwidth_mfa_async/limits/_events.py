"""Decides which changes of a limit are emitted as events."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .._logger import WAITS
from ..telemetry import LimitChangedEvent, LimitWaitEvent, SendsPausedEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._validation import Lane
    from ..telemetry import Event

# An event is emitted for a rate above this multiple of the last emitted one, and for a pause longer by this many
# seconds.
_RATE_CHANGE_THRESHOLD: Final = 1.25
_PAUSE_EVENT_THRESHOLD: Final = 0.5


class LimitEvents:
    """Emits the events of one channel.

    Args:
        channel: its name.
        emit: receives events; None to build none.
        rate: the configured rate; None when unknown.
    """

    def __init__(self, channel: str, emit: Callable[[Event], None] | None, rate: float | None) -> None:
        self._channel = channel
        self._emit = emit
        self._last_emitted_rate = math.inf if rate is None else rate

    def waited(self, lane: Lane, seconds: float) -> None:
        """Emit that a call waited for its permit."""
        if self._emit is not None:
            self._emit(LimitWaitEvent(channel=self._channel, lane=lane, seconds=seconds))

    def paused(self, was_paused_until: float, until: float, now: float) -> None:
        """Emit that a rejection paused the channel, unless it was already paused for about as long."""
        is_new = was_paused_until <= now or until - was_paused_until > _PAUSE_EVENT_THRESHOLD
        if until <= now or not is_new:
            return
        WAITS.debug("the %s channel is paused for %.3f s after a 429", self._channel, until - now)
        if self._emit is not None:
            self._emit(SendsPausedEvent(channel=self._channel, seconds=until - now))

    def rate_changed(self, rate: float | None, *, cut: bool) -> None:
        """Emit that the rate was cut, or has risen far enough."""
        if rate is None or self._emit is None or not (cut or rate > self._last_emitted_rate * _RATE_CHANGE_THRESHOLD):
            return
        if rate != self._last_emitted_rate:
            self._last_emitted_rate = rate
            cause: Final = "refused" if cut else "probe"
            self._emit(LimitChangedEvent(channel=self._channel, rate=rate, cause=cause))
