"""Assembles the page: the header, the key figures, the charts and the sessions."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from .... import __version__
from ... import _formats as formats
from .. import _wording as wording
from . import _latency, _outcomes, _rate
from ._html import Html, join, tag
from ._marks import table

if TYPE_CHECKING:
    from ....bulk import JournalReport

_LITERALS: Final = re.compile(f"({'|'.join(map(re.escape, wording.LITERALS))})")


def render(report: JournalReport) -> str:
    """Return a report as one HTML document that is readable without other files, network access or scripts."""
    style, script = _file("style.css"), _file("hover.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        # The policy applies only to elements after it.
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{wording.title(report)}: {wording.headline(report)}"),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    main = tag(
        "main",
        _header(report),
        _figures(report) if wording.whole(report) else None,
        _steps(report),
        tag("div", *_charts(report), _positions(report), _sessions(report), class_="cards"),
        _footer(report),
        class_="page",
    )
    body = tag("body", main, tag("script", script))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


@cache
def _file(name: str) -> Html:
    return Html((resources.files(__name__.rpartition(".")[0]) / name).read_text("utf-8"))


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _header(report: JournalReport) -> Html:
    created = tag("time", formats.timestamp(report.created), datetime=report.created.isoformat(timespec="seconds"))
    run = join(tag("b", wording.title(report)), f", {wording.channel(report)}, started ", created, " UTC")
    return tag(
        "header",
        tag("p", run, class_="run"),
        tag("h1", wording.headline(report)),
        tag("p", f"{wording.state(report)[:1].upper()}{wording.state(report)[1:]}.", class_="state"),
    )


def _charts(report: JournalReport) -> tuple[Html, ...]:
    if not wording.whole(report):
        return ()
    return (
        _rate.chart(report),
        _outcomes.by_status(report),
        _latency.chart(report),
        _outcomes.by_cause(report),
    )


def _figures(report: JournalReport) -> Html:
    counts, totals, latency = report.counts, report.totals, report.latency
    failed = counts.rejected + counts.not_sent + counts.invalid
    waiting = counts.pending + counts.sending
    figures = [
        ("Accepted", formats.share(counts.accepted, wording.whole(report)), f"{formats.count(counts.accepted)} codes"),
        ("Failed", formats.count(failed), "rejected, not sent or invalid"),
        ("Unknown", formats.count(counts.unknown), "may have been sent"),
    ]
    if report.possible_duplicates or report.possible_duplicates_unrecorded:
        unrecorded = report.possible_duplicates_unrecorded
        remark = (
            f"not recorded for {formats.count(unrecorded)}" if unrecorded else "an earlier attempt may have arrived"
        )
        figures.append(("Possible duplicates", formats.count(report.possible_duplicates), remark))
    if totals.not_taken:
        figures.append(("Not taken", formats.count(totals.not_taken), "in the input, not read yet"))
    if waiting:
        figures.append(("Without a result", formats.count(waiting), "pending, in flight or interrupted"))
    if totals.codes_per_second and totals.ended >= wording.MIN_ITEMS_FOR_RATE:
        number, _, unit = formats.rate(totals.codes_per_second).partition(" ")
        figures.append((f"Codes {unit}", number, f"over {formats.duration(totals.working_seconds)} of sending"))
    if latency.percentiles:
        median = latency.percentiles[0]
        figures.append(("Median latency", formats.latency(median.value), "half of the answers were faster"))
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value, tag("small", remark))) for name, value, remark in figures),
        class_="card figures",
    )


def _steps(report: JournalReport) -> Html | None:
    steps = wording.next_steps(report)
    if not steps:
        return None
    return tag(
        "section",
        tag("h2", "Next steps"),
        tag("ul", *(tag("li", *_with_code(step)) for step in steps)),
        class_="card steps",
    )


def _with_code(text: str) -> list[str]:
    parts = _LITERALS.split(text)
    return [tag("code", part) if part in wording.LITERALS else part for part in parts]


def _positions(report: JournalReport) -> Html | None:
    listed = [
        (name, positions, number)
        for name, positions, number in (
            ("Unknown", report.unknown_positions, report.counts.unknown),
            ("In flight or interrupted", report.sending_positions, report.counts.sending),
        )
        if positions
    ]
    if not listed:
        return None
    return tag(
        "section",
        tag("h2", "Items to look up in your input"),
        tag("p", "Positions in the input of the run that first contained them; the first item is 0."),
        *(
            tag("p", tag("b", f"{name}: "), tag("code", wording.positions(positions, number)), class_="positions")
            for name, positions, number in listed
        ),
        class_="card wide",
    )


def _sessions(report: JournalReport) -> Html | None:
    if not report.sessions:
        return None
    shown = report.sessions[-wording.MAX_SESSIONS :]
    endings = ", ".join(
        f"{formats.count(number)} {wording.ending(name)}" for name, number in report.sessions_by_ending.items()
    )
    rows = (
        [
            formats.count(session.number),
            formats.timestamp(session.started),
            formats.timestamp(session.ended) if session.ended else "not known",
            formats.duration((session.ended - session.started).total_seconds()) if session.ended else "",
            wording.ending(session.ending),
        ]
        for session in shown
    )
    left_out = f"; the latest {len(shown)} are shown" if len(shown) < sum(report.sessions_by_ending.values()) else ""
    return tag(
        "section",
        tag("h2", "Sessions"),
        tag("p", f"Each opening of the journal for sending: {endings}{left_out}."),
        table(["No.", "Started (UTC)", "Ended (UTC)", "Lasted", "How it ended"], rows, name="Sessions"),
        class_="card wide sessions",
    )


def _footer(report: JournalReport) -> Html:
    made_by = f", written by version {report.made_by}" if report.made_by else ""
    return tag(
        "footer",
        f"{report.journal}{made_by}, read {formats.timestamp(report.read_at)} UTC "
        f"by bandwidth_mfa_async {__version__}. "
        "This page contains no phone number, no text and no personal id.",
    )
