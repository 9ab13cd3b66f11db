"""The chart of a run over time: panels of accepted codes, failures and 429s a second on one time axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from ... import _formats as formats
from .. import _wording as wording
from ._html import join, percent, tag
from ._marks import Figure, Table, axis_labels, drawing, grid, text
from ._scales import TimeAxis, count_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from markupsafe import Markup

    from ....bulk import JournalReport
    from ....bulk.report._parts import Point

_TITLE_HEIGHT: Final = 30
_PANEL_GAP: Final = 18
_PAUSE_LABEL: Final = 14.0
_MAX_LABELLED: Final = 4


@frozen
class _Panel:
    title: str
    number: Callable[[Point], int]
    height: int
    class_: str


_PANELS: Final = (
    _Panel("Accepted", lambda point: point.accepted, 180, "accepted"),
    _Panel("Rejected, not sent or unknown", lambda point: point.codes - point.accepted, 56, "rejected"),
    _Panel("Attempts answered 429", lambda point: point.throttled, 56, "throttled"),
)
_NOTHING: Final = _Panel("Accepted: none", _PANELS[0].number, 28, "accepted")


def chart(report: JournalReport) -> Figure:
    """Return the figure."""
    points = [point for span in report.timeline.spans for point in span.points]
    title, wide = "Codes over time", "card wide"
    if not points:
        return Figure(title, "No item has finished yet.", class_=wide)
    if not any(point.codes or point.throttled for point in points):
        caption, drawn, label = "No request was made.", None, "The numbers"
    elif len(points) < wording.MIN_POINTS:
        caption = f"The run took {formats.duration(report.totals.working_seconds)}: too short for a chart."
        drawn, label = None, "The numbers"
    else:
        caption, drawn = _caption(report), _drawing(report, points)
        label = f"The {len(points)} points as a table"
    return Figure(title, caption, drawn, _table(report), label, has_readout=drawn is not None, class_=wide)


def _caption(report: JournalReport) -> str:
    totals, timeline = report.totals, report.timeline
    rate, busiest = formats.rate(totals.codes_per_second), formats.rate(totals.busiest_per_second)
    sentences = [f"{rate[0].upper()}{rate[1:]} on average, {busiest} at peak."]
    if totals.throttled:
        number = "1 attempt was" if totals.throttled == 1 else f"{formats.count(totals.throttled)} attempts were"
        sentences.append(f"{number} answered 429.")
    else:
        sentences.append("No attempt was answered 429.")
    sentences.append(f"One step is {formats.duration(timeline.point_seconds)}; times are UTC.")
    if len(timeline.spans) > 1:
        sentences.append("Dashed lines mark pauses between sessions, which are left out.")
    return " ".join(sentences)


def _drawing(report: JournalReport, points: list[Point]) -> Markup:
    axis = TimeAxis(report.timeline.spans)
    fastest = max((point.codes / point.seconds for point in points), default=0.0)
    factor, unit = formats.rate_unit(fastest or max(point.throttled / point.seconds for point in points))
    pieces: list[Markup] = []
    top = 0
    for place, panel in enumerate(_PANELS):
        if place and not any(panel.number(point) for point in points):
            continue
        drawn = panel if any(panel.number(point) for point in points) else _NOTHING
        pieces += _panel(report, axis, drawn, top, factor, unit, first=not place)
        top += _TITLE_HEIGHT + drawn.height + _PANEL_GAP
    bottom = top - _PANEL_GAP
    name = (
        f"{wording.title(report)}: codes {unit} over time, {formats.significant(fastest * factor)} at peak; "
        "the numbers are in the table below"
    )
    return drawing(
        bottom + (44 if 1 <= len(axis.pauses()) <= _MAX_LABELLED else 26),
        *pieces,
        axis_labels(axis.ticks(), bottom),
        _pauses(axis, bottom),
        _hover(report, axis, bottom, factor, unit),
        name=name,
    )


def _panel(  # noqa: PLR0913 - a panel is placed, scaled and named
    report: JournalReport, axis: TimeAxis, panel: _Panel, top: int, factor: float, unit: str, *, first: bool
) -> list[Markup]:
    rates = [
        [(panel.number(point) / point.seconds * factor, point) for point in span.points]
        for span in report.timeline.spans
    ]
    ticks = count_ticks(max(rate for span in rates for rate, _ in span), 4 if first else 1)
    ticks = ticks if panel is _PANELS[0] else [0.0, ticks[-1]]
    plot = top + _TITLE_HEIGHT

    def y(rate: float) -> float:
        return panel.height * (1 - rate / ticks[-1])

    area: list[str] = []
    line: list[str] = []
    for index, span in enumerate(rates):
        start = report.timeline.spans[index].start
        corners: list[str] = []
        for rate, point in span:
            offset = (point.start - start).total_seconds()
            edges = (axis.at(index, offset), axis.at(index, offset + point.seconds))
            corners += [f"{10 * edge:.2f} {y(rate):.1f}" for edge in edges]
        left, right = corners[0].split()[0], corners[-1].split()[0]
        line.append(f"M{'L'.join(corners)}")
        area.append(f"M{left} {panel.height}L{'L'.join(corners)}L{right} {panel.height}Z")
    shape = tag(
        "svg",
        tag("path", d="".join(area), class_=f"area {panel.class_}"),
        tag("path", d="".join(line), class_=f"edge {panel.class_}", vector_effect="non-scaling-stroke"),
        y=plot,
        width="100%",
        height=panel.height,
        viewBox=f"0 0 1000 {panel.height}",
        preserveAspectRatio="none",
    )
    title = tag(
        "text",
        panel.title,
        tag("tspan", f"  {unit}", class_="remark" if first else "remark again"),
        x="0%",
        y=top + 14,
        class_=f"name {panel.class_}-text",
    )
    return [title, grid([(y(value), formats.significant(value)) for value in ticks], plot), shape]


def _pauses(axis: TimeAxis, bottom: int) -> Markup:
    pauses = axis.pauses()
    pieces: list[Markup] = []
    for place, pause in enumerate(pauses):
        pieces.append(
            tag("line", x1=percent(pause.at), x2=percent(pause.at), y1=_TITLE_HEIGHT, y2=bottom + 26, class_="pause")
        )
        # More labels would overlap; the table lists every pause.
        if len(pauses) <= _MAX_LABELLED and (not place or pause.at - pauses[place - 1].at >= _PAUSE_LABEL):
            label = text(
                f"{formats.duration(pause.seconds)} pause",
                pause.at,
                bottom + 40,
                anchor="start" if pause.at < 10 else "end" if pause.at > 90 else "middle",
            )
            pieces.append(tag("g", label, class_="second" if place else None))
    return join(*pieces)


def _hover(report: JournalReport, axis: TimeAxis, bottom: int, factor: float, unit: str) -> Markup:
    """Return a transparent column for each point, with its numbers as a tooltip."""
    columns: list[Markup] = []
    for index, span in enumerate(report.timeline.spans):
        for point in span.points:
            left = axis.at(index, (point.start - span.start).total_seconds())
            width = axis.at(index, (point.start - span.start).total_seconds() + point.seconds) - left
            rate = formats.significant(point.codes / point.seconds * factor)
            tooltip = f"{formats.timestamp(point.start)}: {rate} codes {unit}, {_point_text(point)}"
            columns.append(
                tag(
                    "rect",
                    tag("title", tooltip),
                    x=percent(left),
                    y=0,
                    width=percent(width),
                    height=bottom,
                    class_="point",
                )
            )
    return join(*columns)


def _point_text(point: Point) -> str:
    parts = [
        f"{formats.count(getattr(point, name))} {wording.STATUSES[name][0]}"
        for name in ("accepted", "rejected", "not_sent", "unknown", "invalid")
        if getattr(point, name) or name == "accepted"
    ]
    return ", ".join([*parts, f"{formats.count(point.throttled)} answered 429"])


def _table(report: JournalReport) -> Table:
    heads = ["From (UTC)", "Lasts", "Accepted", "Rejected", "Not sent", "Unknown", "Invalid", "429s", "Codes a second"]
    rows: list[list[str]] = []
    spans = report.timeline.spans
    for place, span in enumerate(spans):
        if place:
            pause = (span.start - spans[place - 1].start).total_seconds() - spans[place - 1].seconds
            rows.append([f"{formats.duration(pause)} pause", *[""] * (len(heads) - 1)])
        for point in span.points:
            numbers = (
                *(point.accepted, point.rejected, point.not_sent),
                *(point.unknown, point.invalid, point.throttled),
            )
            rows.append(
                [
                    formats.timestamp(point.start),
                    formats.duration(point.seconds),
                    *(formats.count(number) for number in numbers),
                    formats.significant(point.codes / point.seconds),
                ]
            )
    return Table("Codes over time, in numbers", heads, rows, numbers=range(1, len(heads)))
