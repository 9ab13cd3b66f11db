"""The charts of what became of the items: by status, and the failures by cause. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _formats as formats
from .. import _wording as words
from ._html import join, tag
from ._marks import bar, bars, bars_height, drawing, figure, folded, table

if TYPE_CHECKING:
    from ....bulk import JournalReport
    from ....bulk.report._parts import FailureReport
    from ._html import Html


def by_status(report: JournalReport) -> Html:
    """Return the figure of the items by what became of them."""
    total = report.totals.items
    numbers = {name: getattr(report.counts, name) for name in words.STATUSES}
    shown = [name for name in words.STATUSES if numbers[name] or name == "accepted"]
    rows = [
        (
            name,
            words.STATUSES[name][0].capitalize(),
            words.STATUSES[name][1],
            numbers[name],
            f"{formats.count(numbers[name])} · {formats.share(numbers[name], total)}",
        )
        for name in shown
    ]
    told = ", ".join(f"{formats.count(numbers[name])} {words.STATUSES[name][0]}" for name in shown)
    heads = ["Outcome", "Items", "Share", "What it means"]
    cells = (
        [
            words.STATUSES[name][0],
            formats.count(numbers[name]),
            formats.share(numbers[name], total),
            words.STATUSES[name][1],
        ]
        for name in words.STATUSES
    )
    return figure(
        "What became of the items",
        f"A whole bar is {formats.items(total)}: all that the journal knows." if total else "The journal has no item.",
        drawing(bars_height(len(rows)), bars(rows, total), name=f"Items by outcome: {told}", class_="plot full"),
        folded("All outcomes as a table", table(heads, cells, name="Items by outcome, in numbers", numbers=(1, 2))),
    )


def by_cause(report: JournalReport) -> Html:
    """Return the figure of the items that were not accepted, by cause."""
    failures = report.failures
    if not failures:
        words_ = "No item failed." if report.totals.items else "The journal has no item."
        return figure("Failures by cause", words_, class_="card wide")
    largest = failures[0].count
    cells = (
        [
            join(
                tag("b", _cause(failure)),
                tag("span", words.STATUSES[failure.status][0], class_="soft"),
                bar(failure.status, failure.count, largest),
            ),
            formats.count(failure.count),
            failure.meaning,
            words.RESUME[failure.resume],
        ]
        for failure in failures[: words.MAX_CAUSES]
    )
    total = sum(failure.count for failure in failures)
    explained = f"{formats.items(total)} not accepted; a whole bar is the most frequent cause."
    if len(failures) > words.MAX_CAUSES:
        explained += f" The {len(failures) - words.MAX_CAUSES} rarest are left out."
    heads = ["Cause", "Items", "What happened", "Tried again on resume"]
    return figure(
        "Failures by cause",
        explained,
        table(heads, cells, name="Failures by cause", numbers=(1,)),
        class_="card wide causes",
    )


def _cause(failure: FailureReport) -> str:
    name = failure.cause or "no cause"
    return f"{name} {failure.http_status}" if failure.http_status is not None else name
