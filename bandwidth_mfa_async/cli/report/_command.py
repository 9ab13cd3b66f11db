"""The `report` command: a journal in the terminal, as JSON, or as a page."""

from __future__ import annotations

import errno
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..._files import atomic_write
from ...bulk import JournalReport
from ...errors import ConfigurationError, MFAError
from .. import _formats as formats
from .._files import is_one_of, journal_files
from .._outcome import EXIT_OK, EXIT_USAGE
from . import _wording as words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...bulk.report._parts import Point

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_COLOURS: Final = {
    "accepted": "green",
    "rejected": "red",
    "not_sent": "yellow",
    "unknown": "magenta",
    "invalid": "bright_black",
    "sending": "blue",
    "pending": "bright_black",
}

_LINE: Final = 60
_MAX_WIDTH: Final = 100
_REMEDIES: Final = {
    errno.ENOENT: "make its folder, or ",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, or "),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "see to the right to write in its folder, or "),
}

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa report launch.db
  bandwidth-mfa report launch.db --html report.html
"""


@click.command(
    short_help="What a bulk run's journal says: in the terminal, as JSON, or as a page.",
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
def report(journal: Path, as_json: bool, page: Path | None) -> None:  # noqa: FBT001 - click passes flags so
    """Tell what became of a bulk run, from its JOURNAL; also while the run is under way.

    The journal is only read. It holds no phone number, no text and no id of a person, so neither does a report.
    """
    if as_json and page is not None:
        raise click.UsageError("--json and --html exclude each other: run it once for each")
    try:
        if page is not None and is_one_of(str(page), journal_files(str(journal))):
            raise ConfigurationError(f"--html: {page} is the journal itself or a part of it; name another file")
        read = JournalReport.read(journal)
    except (MFAError, OSError) as error:
        _fail(str(error))
    if as_json:
        click.echo(json.dumps(read.to_dict(), ensure_ascii=False))
    elif page is not None:
        _write_page(read, page)
    else:
        console = Console()
        console.print(_summary(read), width=min(console.width, _MAX_WIDTH))
    sys.exit(EXIT_OK)


def _fail(problem: str) -> NoReturn:
    click.echo(f"error: {problem}".encode(errors="replace").decode(), err=True)
    sys.exit(EXIT_USAGE)


def _write_page(read: JournalReport, page: Path) -> None:
    from .page import render

    content = render(read).encode()
    if str(page) == "-":
        click.echo(content, nl=False)
        return
    try:
        atomic_write(str(page), content)
    except OSError as error:
        remedy = f"{_REMEDIES.get(error.errno or 0, '')}name another file; - is standard output"
        _fail(f"--html: {page} cannot be written: {error.strerror or error}; {remedy}")
    click.echo(f"wrote {click.format_filename(page)}: open it in a browser")


def _summary(read: JournalReport) -> RenderableType:
    facts = f"{words.title(read)}, {words.channel(read)}, begun {formats.moment(read.created)} UTC"
    parts: list[RenderableType] = [
        Text(f"{words.headline(read)}; {words.state(read)}.", style="bold"),
        Text(facts, style="dim"),
        Text(),
    ]
    if read.totals.items:
        parts += [_outcomes(read), Text(), *_speed(read)]
    if read.failures:
        parts += [Text("failures by cause", style="bold"), _failures(read), Text()]
    if read.sessions:
        parts += [Text("sessions (UTC)", style="bold"), _sessions(read), Text()]
    parts += _places(read)
    parts.append(Text("what to do next", style="bold"))
    steps = _plain_table()
    for step in words.next_steps(read):
        steps.add_row("-", step)
    return Group(*parts, steps)


def _plain_table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))


def _outcomes(read: JournalReport) -> Table:
    table = _plain_table()
    table.add_column(max_width=12)
    table.add_column(justify="right")
    table.add_column(justify="right")
    for name, (title, meaning) in words.STATUSES.items():
        number = getattr(read.counts, name)
        if not number and name in {"sending", "pending"}:
            continue
        table.add_row(
            title,
            formats.count(number),
            formats.share(number, read.totals.items),
            Text(_bar(number, read.totals.items), style=_COLOURS[name]),
            Text(meaning, style="dim"),
        )
    return table


def _bar(number: int, whole: int) -> str:
    """Return a bar in eighths of a character, so that one in a million still shows."""
    eighths = max(1, round(8 * 12 * number / whole)) if number else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def _speed(read: JournalReport) -> list[RenderableType]:
    totals = read.totals
    table = _plain_table()
    points = [point for span in read.timeline.spans for point in span.points]
    lines = len(points) >= words.MIN_POINTS
    if totals.codes_per_second and totals.ended >= words.MIN_ITEMS_FOR_RATE:
        average, best = formats.rate(totals.codes_per_second), formats.rate(totals.busiest_per_second)
        table.add_row(
            "codes", f"{average} on average, {best} at best, {formats.duration(totals.working_seconds)} of work"
        )
        if lines:
            table.add_row("", Text(_spark([point.codes / point.seconds for point in points]), style="green"))
            table.add_row("", Text(_ends(points), style="dim"))
    if totals.throttled:
        attempts = "attempt" if totals.throttled == 1 else "attempts"
        table.add_row("429s", f"{formats.count(totals.throttled)} {attempts}")
        if lines:
            table.add_row("", Text(_spark([point.throttled / point.seconds for point in points]), style="yellow"))
    elif any(point.codes for point in points):
        table.add_row("429s", "none")
    if read.latency.percentiles:
        shown = ", ".join(f"p{mark.percent} {formats.latency(mark.value)}" for mark in read.latency.percentiles)
        table.add_row("answers", f"{shown} (to within a factor of {read.latency.resolution:.2f})")
    return [table, Text()] if table.row_count else []


def _spark(rates: list[float]) -> str:
    """Return the rates as one line of blocks; neighbours are averaged where there are more than fit."""
    wide = min(_LINE, len(rates))
    edges = [round(place * len(rates) / wide) for place in range(wide + 1)]
    means = [sum(rates[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    top = max(means)
    # A rate above nothing is never drawn as nothing.
    return "".join(_BLOCKS[max(1, round(8 * mean / top)) if mean else 0] for mean in means)


def _ends(points: list[Point]) -> str:
    first, last = formats.moment(points[0].start), formats.moment(points[-1].start)
    return f"{first}{last.rjust(max(min(_LINE, len(points)), 42) - len(first))}"


def _failures(read: JournalReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("outcome")
    table.add_column("cause")
    table.add_column("items", justify="right")
    table.add_column("what happened", ratio=1)
    table.add_column("on resume", width=13)
    for failure in read.failures[: words.MAX_CAUSES]:
        name = failure.cause or "no cause"
        table.add_row(
            Text(words.STATUSES[failure.status][0], style=_COLOURS[failure.status]),
            Text(f"{name} {failure.http_status}" if failure.http_status is not None else name, overflow="fold"),
            formats.count(failure.count),
            failure.meaning,
            {"yes": "tried again", "no": "left", "at_least_once": "AT_LEAST_ONCE"}[failure.resume],
        )
    return table


def _sessions(read: JournalReport) -> Table:
    table = _plain_table()
    table.add_column(justify="right")
    for _ in range(3):
        table.add_column()
    for session in read.sessions[-words.MAX_SESSIONS :]:
        lasted = formats.duration((session.ended - session.started).total_seconds()) if session.ended else ""
        table.add_row(
            formats.count(session.number), formats.moment(session.started), lasted, words.ending(session.ending)
        )
    return table


def _places(read: JournalReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for name, found, number in (
        ("unknown", read.unknown_positions, read.counts.unknown),
        ("in flight or interrupted", read.sending_positions, read.counts.sending),
    ):
        if found:
            parts += [
                Text(f"{name}: these places of your input, counted from 0", style="bold"),
                Text(words.positions(found, number)),
                Text(),
            ]
    return parts
