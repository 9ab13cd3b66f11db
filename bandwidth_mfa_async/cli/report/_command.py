"""The command `report`: its options, and the report in the terminal, as JSON or as a page."""

from __future__ import annotations

import errno
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..._files import atomic_write
from ...bulk import JournalReport
from ...errors import ConfigurationError, MFAError
from .. import _formats as formats
from .._files import is_one_of, journal_files
from .._outcome import EXIT_OK, EXIT_USAGE
from .._output import OutputConsole, can_print_blocks
from .._terminal import printable
from . import _wording as wording

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...bulk.report._parts import Point

_COLOURS: Final = {
    "accepted": "green",
    "rejected": "red",
    "not_sent": "yellow",
    "unknown": "magenta",
    "invalid": "bright_black",
    "sending": "blue",
    "pending": "bright_black",
    "not_taken": "bright_black",
}

_LINE: Final = 60
_MAX_WIDTH: Final = 100
_REMEDIES: Final = {
    errno.ENOENT: "create its folder, or ",
    errno.ENXIO: "start the program that reads it first, or ",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space, or "),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "get write permission for its folder, or "),
}

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa report launch.db
  bandwidth-mfa report launch.db --html report.html
"""


@click.command(
    short_help="Report the outcomes of a bulk run: in the terminal, as JSON, or as a page.",
    epilog=_EXAMPLES,
)
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write one self-contained page with charts; - for standard output.",
)
def report(journal: Path, as_json: bool, page: Path | None) -> None:  # noqa: FBT001 - click passes flags this way
    """Report the outcomes of a bulk run from its JOURNAL, also while the run is in progress.

    The journal is only read. It contains no phone number, no text and no personal id, and neither does the report.
    """
    if as_json and page is not None:
        raise click.UsageError("--json and --html exclude each other: run the command once for each")
    try:
        if page is not None and is_one_of(str(page), journal_files(str(journal))):
            raise ConfigurationError(f"--html: {page} is the journal or one of its files; name another file")
        journal_report = JournalReport.read(journal)
    except (MFAError, OSError) as error:
        _fail(str(error))
    if as_json:
        click.echo(json.dumps(journal_report.to_dict(), ensure_ascii=False))
    elif page is not None:
        _write_page(journal_report, page)
    else:
        console = OutputConsole()
        console.print(_summary(journal_report), width=min(console.width, _MAX_WIDTH))
    sys.exit(EXIT_OK)


def _fail(problem: str) -> NoReturn:
    click.echo(printable(f"error: {problem}"), err=True)
    sys.exit(EXIT_USAGE)


def _write_page(report: JournalReport, page: Path) -> None:
    from .page import render

    content = render(report).encode()
    if str(page) == "-":
        click.echo(content, nl=False)
        return
    try:
        atomic_write(str(page), content)
    except OSError as error:
        remedy = f"{_REMEDIES.get(error.errno or 0, '')}name another file, or - for standard output"
        _fail(f"--html: {page} cannot be written: {error.strerror or error}; {remedy}")
    click.echo(f"wrote {printable(str(page))}: open it in a browser")


def _summary(report: JournalReport) -> RenderableType:
    facts = f"{wording.title(report)}, {wording.channel(report)}, started {formats.timestamp(report.created)} UTC"
    parts: list[RenderableType] = [
        Text(f"{wording.headline(report)}; {wording.state(report)}.", style="bold"),
        Text(facts, style="dim"),
        Text(),
    ]
    if wording.whole(report):
        parts += [_outcomes(report), Text(), *_speed(report)]
    if report.failures:
        parts += [Text("failures by cause", style="bold"), _failures(report), Text()]
    if report.sessions:
        parts += [Text("sessions (UTC)", style="bold"), _sessions(report), Text()]
    parts += _positions(report)
    parts.append(Text("next steps", style="bold"))
    steps = _plain_table()
    for step in wording.next_steps(report):
        steps.add_row("-", step)
    return Group(*parts, steps)


def _plain_table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))


def _outcomes(report: JournalReport) -> Table:
    table = _plain_table()
    table.add_column(max_width=12)
    table.add_column(justify="right")
    table.add_column(justify="right")
    total = wording.whole(report)
    for name, title, number, meaning in wording.outcomes(report):
        if not number and name in {"sending", "pending", "not_taken"}:
            continue
        table.add_row(
            title,
            formats.count(number),
            formats.share(number, total),
            Text(_bar(number, total), style=_COLOURS[name]),
            Text(meaning, style="dim"),
        )
    return table


def _bar(number: int, whole: int) -> str:
    """Return a bar in steps of an eighth of a character; a number above zero has at least one step."""
    eighths = max(1, round(8 * 12 * number / whole)) if number else 0
    if not can_print_blocks():
        return "#" * max(1, round(eighths / 8)) if eighths else ""
    full, rest = divmod(eighths, 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def _speed(report: JournalReport) -> list[RenderableType]:
    totals = report.totals
    table = _plain_table()
    points = [point for span in report.timeline.spans for point in span.points]
    lines = len(points) >= wording.MIN_POINTS
    if totals.codes_per_second and totals.ended >= wording.MIN_ITEMS_FOR_RATE:
        average, best = formats.rate(totals.codes_per_second), formats.rate(totals.busiest_per_second)
        table.add_row(
            "codes", f"{average} on average, {best} at peak, {formats.duration(totals.working_seconds)} of sending"
        )
        if lines:
            table.add_row("", Text(_sparkline([point.codes / point.seconds for point in points]), style="green"))
            table.add_row("", Text(_time_range(points), style="dim"))
    if totals.throttled:
        attempts = "attempt" if totals.throttled == 1 else "attempts"
        table.add_row("429s", f"{formats.count(totals.throttled)} {attempts}")
        if lines:
            table.add_row("", Text(_sparkline([point.throttled / point.seconds for point in points]), style="yellow"))
    elif any(point.codes for point in points):
        table.add_row("429s", "none")
    if report.latency.percentiles:
        shown = ", ".join(f"p{mark.percent} {formats.latency(mark.value)}" for mark in report.latency.percentiles)
        table.add_row("latency", f"{shown} (to within a factor of {report.latency.resolution:.2f})")
    return [table, Text()] if table.row_count else []


def _sparkline(rates: list[float]) -> str:
    """Return the rates as one line of blocks; if they do not fit, neighbours are averaged."""
    width = min(_LINE, len(rates))
    edges = [round(place * len(rates) / width) for place in range(width + 1)]
    means = [sum(rates[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    return formats.sparkline(means, ascii_only=not can_print_blocks())


def _time_range(points: list[Point]) -> str:
    first, last = formats.timestamp(points[0].start), formats.timestamp(points[-1].start)
    return f"{first}{last.rjust(max(min(_LINE, len(points)), 42) - len(first))}"


def _failures(report: JournalReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("outcome")
    table.add_column("cause")
    table.add_column("items", justify="right")
    table.add_column("what happened", ratio=1)
    table.add_column("on resume", width=13)
    for failure in report.failures[: wording.MAX_CAUSES]:
        name = failure.cause or "no cause"
        table.add_row(
            Text(wording.STATUSES[failure.status][0], style=_COLOURS[failure.status]),
            Text(f"{name} {failure.http_status}" if failure.http_status is not None else name, overflow="fold"),
            formats.count(failure.count),
            failure.meaning,
            {"yes": "sent again", "no": "skipped", "at_least_once": "AT_LEAST_ONCE"}[failure.resume],
        )
    return table


def _sessions(report: JournalReport) -> Table:
    table = _plain_table()
    table.add_column(justify="right")
    for _ in range(3):
        table.add_column()
    for session in report.sessions[-wording.MAX_SESSIONS :]:
        lasted = formats.duration((session.ended - session.started).total_seconds()) if session.ended else ""
        table.add_row(
            formats.count(session.number), formats.timestamp(session.started), lasted, wording.ending(session.ending)
        )
    return table


def _positions(report: JournalReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for name, positions, number in (
        ("unknown", report.unknown_positions, report.counts.unknown),
        ("in flight or interrupted", report.sending_positions, report.counts.sending),
    ):
        if positions:
            parts += [
                Text(f"{name}: positions in the input, counted from 0", style="bold"),
                Text(wording.positions(positions, number)),
                Text(),
            ]
    return parts
