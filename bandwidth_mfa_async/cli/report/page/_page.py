"""Renders the page from its template: the key figures, the charts, the tables and their texts."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .... import __version__
from ... import _formats as formats
from .. import _wording as wording
from . import _latency, _outcomes, _rate
from ._marks import Table

if TYPE_CHECKING:
    from jinja2 import Template

    from ....bulk import JournalReport
    from ._marks import Figure

_LITERALS: Final = re.compile(f"({'|'.join(map(re.escape, wording.LITERALS))})")


def render(report: JournalReport) -> str:
    """Return a report as one HTML document that is readable without other files, network access or scripts."""
    style, script = _file("style.css"), _file("hover.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        report=report,
        wording=wording,
        split_literals=_LITERALS.split,
        formats=formats,
        version=__version__,
        policy=policy,
        # Files of this package, which are not escaped.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        state=wording.state(report),
        figures=_figures(report) if wording.whole(report) else [],
        charts=_charts(report),
        positions=_positions(report),
        sessions=_sessions(report) if report.sessions else None,
        session_endings=_session_endings(report),
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("page.html"))


@cache
def _file(name: str) -> str:
    return (resources.files(__name__.rpartition(".")[0]) / name).read_text("utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _charts(report: JournalReport) -> tuple[Figure, ...]:
    if not wording.whole(report):
        return ()
    return (
        _rate.chart(report),
        _outcomes.by_status(report),
        _latency.chart(report),
        _outcomes.by_cause(report),
    )


def _figures(report: JournalReport) -> list[tuple[str, str, str]]:
    """Return the name, the value and a remark of each key figure."""
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
    return figures


def _positions(report: JournalReport) -> list[tuple[str, str]]:
    return [
        (name, wording.positions(positions, number))
        for name, positions, number in (
            ("Unknown", report.unknown_positions, report.counts.unknown),
            ("In flight or interrupted", report.sending_positions, report.counts.sending),
        )
        if positions
    ]


def _sessions(report: JournalReport) -> Table:
    rows = [
        [
            formats.count(session.number),
            formats.timestamp(session.started),
            formats.timestamp(session.ended) if session.ended else "not known",
            formats.duration((session.ended - session.started).total_seconds()) if session.ended else "",
            wording.ending(session.ending),
        ]
        for session in report.sessions[-wording.MAX_SESSIONS :]
    ]
    return Table("Sessions", ["No.", "Started (UTC)", "Ended (UTC)", "Lasted", "How it ended"], rows)


def _session_endings(report: JournalReport) -> str:
    endings = ", ".join(
        f"{formats.count(number)} {wording.ending(name)}" for name, number in report.sessions_by_ending.items()
    )
    shown = min(len(report.sessions), wording.MAX_SESSIONS)
    return endings + (f"; the latest {shown} are shown" if shown < sum(report.sessions_by_ending.values()) else "")
