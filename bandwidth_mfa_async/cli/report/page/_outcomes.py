"""The charts of delivery outcomes: items by status, and failures by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _formats as formats
from .. import _wording as wording
from ._html import join, tag
from ._marks import Figure, Table, bar, bars, bars_height, drawing

if TYPE_CHECKING:
    from ....bulk import JournalReport
    from ....bulk.report._parts import FailureReport


def by_status(report: JournalReport) -> Figure:
    """Return the figure of the items by outcome."""
    total = wording.whole(report)
    outcomes = wording.outcomes(report)
    shown = [outcome for outcome in outcomes if outcome[2] or outcome[0] == "accepted"]
    rows = [
        (
            name,
            title.capitalize(),
            wording.STATUSES[name][1] if name in wording.STATUSES else meaning,
            number,
            f"{formats.count(number)} · {formats.share(number, total)}",
        )
        for name, title, number, meaning in shown
    ]
    summary = ", ".join(f"{formats.count(number)} {title}" for _, title, number, _ in shown)
    heads = ["Outcome", "Items", "Share", "What it means"]
    cells = [
        [title, formats.count(number), formats.share(number, total), meaning]
        for name, title, number, meaning in outcomes
        if number or name in wording.STATUSES
    ]
    return Figure(
        "Delivery outcomes",
        f"A full bar is all {formats.items(total)} of the {'input' if report.totals.not_taken else 'journal'}."
        if total
        else "The journal has no items.",
        drawing(bars_height(len(rows)), bars(rows, total), name=f"Items by outcome: {summary}", class_="plot full"),
        Table("Items by outcome, in numbers", heads, cells, numbers=(1, 2)),
        "All outcomes as a table",
    )


def by_cause(report: JournalReport) -> Figure:
    """Return the figure of the items that were not accepted, by cause."""
    failures = report.failures
    if not failures:
        caption = "No item failed." if report.totals.items else "The journal has no items."
        return Figure("Failures by cause", caption, class_="card wide")
    largest = failures[0].count
    cells = [
        [
            join(
                tag("b", _cause(failure)),
                tag("span", wording.STATUSES[failure.status][0], class_="soft"),
                bar(failure.status, failure.count, largest),
            ),
            formats.count(failure.count),
            failure.meaning,
            wording.RESUME[failure.resume],
        ]
        for failure in failures[: wording.MAX_CAUSES]
    ]
    total = sum(failure.count for failure in failures)
    caption = f"{formats.items(total)} not accepted; a full bar is the most frequent cause."
    if len(failures) > wording.MAX_CAUSES:
        caption += f" The {len(failures) - wording.MAX_CAUSES} rarest are left out."
    heads = ["Cause", "Items", "What happened", "Sent again on resume"]
    return Figure(
        "Failures by cause",
        caption,
        table=Table("Failures by cause", heads, cells, numbers=(1,)),
        class_="card wide causes",
    )


def _cause(failure: FailureReport) -> str:
    name = failure.cause or "no cause"
    return f"{name} {failure.http_status}" if failure.http_status is not None else name
