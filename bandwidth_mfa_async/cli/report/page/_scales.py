"""Computes the ticks of the axes."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....bulk.report._parts import Span

_TIME_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600 * hours for hours in (1, 2, 3, 6, 12)),
    *(86_400 * days for days in (1, 2, 5, 10, 30, 90, 365, 3_650, 36_500)),
)
# In percent of the width: a label without and with seconds, the rightmost label, and the gap between two spans.
_LABEL: Final = 9.0
_LONG_LABEL: Final = 12.0
_LAST_LABEL: Final = 96.0
_PAUSE: Final = 1.6


@frozen
class Tick:
    """A mark on an axis.

    Attributes:
        at: the position, from 0 to 100.
        text: the label.
    """

    at: float
    text: str


@frozen
class Pause:
    """A pause that the time axis leaves out.

    Attributes:
        at: the position, from 0 to 100.
        seconds: the length of the pause.
    """

    at: float
    seconds: float


def count_ticks(largest: float, target: int = 4) -> list[float]:
    """Return about `target` round numbers from 0 to at least `largest`."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]


def latency_ticks(low: float, high: float) -> list[Tick]:
    """Return 1, 2 and 5 of each power of ten between two latencies in seconds, on a logarithmic axis."""
    from ... import _formats as formats

    width = math.log10(high / low)
    ticks: list[Tick] = []
    for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for value in (factor * 10.0**power for factor in (1, 2, 5)):
            at = 100 * math.log10(value / low) / width
            if -0.1 <= at <= _LAST_LABEL and (not ticks or at - ticks[-1].at >= _LONG_LABEL):
                ticks.append(Tick(at, formats.latency(value).replace(".0 ", " ")))
    return ticks


class TimeAxis:
    """Maps times to positions on an axis that leaves out the pauses between spans.

    Args:
        spans: at least one span, in chronological order.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        # Pauses take at most a fifth of the width.
        self._pause = min(_PAUSE, 20 / len(spans))
        room = 100.0 - self._pause * (len(spans) - 1)
        self._percent_per_second = room / sum(span.seconds for span in spans)
        self._starts: list[float] = []
        at = 0.0
        for span in spans:
            self._starts.append(at)
            at += span.seconds * self._percent_per_second + self._pause

    def at(self, span: int, seconds: float) -> float:
        """Return the position of a time within a span, from 0 to 100."""
        return self._starts[span] + seconds * self._percent_per_second

    def pauses(self) -> list[Pause]:
        """Return the pauses between the spans."""
        return [
            Pause(start - self._pause / 2, (later.start - earlier.start).total_seconds() - earlier.seconds)
            for start, earlier, later in zip(self._starts[1:], self._spans, self._spans[1:], strict=False)
        ]

    def ticks(self, max_ticks: int = 8) -> list[Tick]:
        """Return round times, at least the width of a label apart."""
        total = sum(span.seconds for span in self._spans)
        step = next((step for step in _TIME_STEPS if total / step <= max_ticks), _TIME_STEPS[-1])
        room = _LONG_LABEL if step < 60 else _LABEL
        ticks: list[Tick] = []
        for index, span in enumerate(self._spans):
            # Steps count from midnight, so that 10-minute ticks are at 14:10 and 14:20.
            midnight = span.start.replace(hour=0, minute=0, second=0, microsecond=0)
            first = -(-(span.start - midnight).total_seconds() // step) * step
            moment = midnight + timedelta(seconds=first)
            while (offset := (moment - span.start).total_seconds()) <= span.seconds:
                at = self.at(index, offset)
                if at <= _LAST_LABEL and (not ticks or at - ticks[-1].at >= room):
                    text = f"{moment:%H:%M:%S}" if step < 60 else f"{moment:%H:%M}"
                    text = f"{moment.day} {moment:%b}" if step >= 86_400 or text in {"00:00", "00:00:00"} else text
                    ticks.append(Tick(at, text))
                moment += timedelta(seconds=step)
        return ticks
