"""The latency chart: a histogram of response times with the percentiles marked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ... import _formats as formats
from ._html import join, percent, tag
from ._marks import Figure, Table, axis_labels, drawing, grid
from ._scales import count_ticks, latency_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from markupsafe import Markup

    from ....bulk import JournalReport
    from ....bulk.report._parts import Latency

_HEIGHT: Final = 170
_LABEL_ROW: Final = 19
_TOP: Final = 3 * _LABEL_ROW + 8
# The minimum number of buckets on the axis, so that a single bar is not as wide as the chart.
_MIN_BUCKETS: Final = 12
# The rightmost position of the slowest percentile, as a share of the axis.
_LABELLED: Final = 0.64


def chart(report: JournalReport) -> Figure:
    """Return the figure."""
    latency = report.latency
    if not latency.answered:
        return Figure("Latency", "No answer was measured.")
    half, slowest = formats.latency(latency.percentiles[0].value), formats.latency(latency.percentiles[-1].value)
    caption = (
        f"Half of {formats.count(latency.answered)} answers came within about {half}, 99 in 100 within {slowest}. "
        f"A bar is the share of answers in a range that is a factor of {latency.resolution:.2f} wide, "
        "which is the resolution of all figures. Only an item's last attempt counts."
    )
    if latency.answered == 1:
        caption = f"The one answer took about {half}."
    return Figure(
        "Latency", caption, _drawing(latency), _table(latency), "The distribution as a table", has_readout=True
    )


def _drawing(latency: Latency) -> Markup:
    low, high = _bounds(latency)
    decades = math.log10(high / low)

    def x(seconds: float) -> float:
        return 100 * math.log10(seconds / low) / decades

    largest = max(bucket.count for bucket in latency.buckets) / latency.answered
    ticks = count_ticks(100 * largest)
    columns: list[Markup] = []
    targets: list[Markup] = []
    for bucket in latency.buckets:
        left, width = x(bucket.low), x(bucket.high) - x(bucket.low)
        height = _HEIGHT * 100 * bucket.count / latency.answered / ticks[-1]
        place = {"x": percent(left + 0.06 * width), "width": percent(0.88 * width)}
        if bucket.count:
            height = max(height, 1.0)
            columns.append(tag("rect", y=_TOP + _HEIGHT - height, height=height, class_="bar accepted", **place))
        tooltip = f"{_range(bucket.low, bucket.high)}: {formats.count(bucket.count)} answers, " + formats.share(
            bucket.count, latency.answered
        )
        targets.append(
            tag(
                "rect",
                tag("title", tooltip),
                x=percent(left),
                width=percent(width),
                y=_TOP,
                height=_HEIGHT,
                class_="point",
            )
        )
    shown = ", ".join(f"p{mark.percent} {formats.latency(mark.value)}" for mark in latency.percentiles)
    return drawing(
        _TOP + _HEIGHT + 26,
        grid([(_HEIGHT * (1 - value / ticks[-1]), f"{formats.significant(value)} %") for value in ticks], _TOP),
        *columns,
        axis_labels(latency_ticks(low, high), _TOP + _HEIGHT),
        _percentiles(latency, x),
        *targets,
        name=f"Distribution of latency: {shown}; the numbers are in the table below",
    )


def _bounds(latency: Latency) -> tuple[float, float]:
    """Return the latencies at both ends of the axis, in seconds."""
    low, high = latency.buckets[0].low, latency.buckets[-1].high
    missing = max(0, _MIN_BUCKETS - len(latency.buckets))
    low /= latency.resolution ** (missing // 2)
    high *= latency.resolution ** (missing - missing // 2)
    # The label of the slowest percentile is right of its line and needs the last third of a narrow screen.
    return low, max(high, low * (latency.percentiles[-1].value / low) ** (1 / _LABELLED))


def _percentiles(latency: Latency, x: Callable[[float], float]) -> Markup:
    pieces: list[Markup] = []
    # One row per label, with the fastest at the top, so that no line crosses a label.
    for row, mark in enumerate(latency.percentiles):
        at = x(mark.value)
        y = row * _LABEL_ROW + 14
        label = f"p{mark.percent} {formats.latency(mark.value)}"
        pieces.append(
            tag("line", x1=percent(at), x2=percent(at), y1=y - 11, y2=_TOP + _HEIGHT, class_="mark"),
        )
        pieces.append(tag("text", label, x=percent(at), dx=6, y=y, class_="label"))
    return join(*pieces)


def _range(low: float, high: float) -> str:
    return f"{formats.latency(low)} to {formats.latency(high)}"


def _table(latency: Latency) -> Table:
    cumulative = 0
    rows: list[list[str]] = []
    for bucket in latency.buckets:
        cumulative += bucket.count
        rows.append(
            [
                _range(bucket.low, bucket.high),
                formats.count(bucket.count),
                formats.share(bucket.count, latency.answered),
                formats.share(cumulative, latency.answered),
            ]
        )
    rows += [
        [f"p{mark.percent}", f"about {formats.latency(mark.value)}", _range(mark.low, mark.high), ""]
        for mark in latency.percentiles
    ]
    heads = ["Latency", "Answers", "Share", "This fast or faster"]
    return Table("Latency, in numbers", heads, rows, numbers=(1, 2, 3))
