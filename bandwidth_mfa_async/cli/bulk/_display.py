"""The display of a bulk run: live on a terminal, one line every ten seconds elsewhere, and a table at the end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...errors import Delivery
from .._formats import possible_duplicates, sparkline, stopwatch
from .._output import can_animate

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console, ConsoleOptions, RenderResult

    from ..._clock import Clock
    from ...bulk import BulkSummary, ItemOutcome

REFRESH_INTERVAL: Final = 0.25
SENDING: Final = "sending"
LINE_INTERVAL: Final = 10.0
_MINUTE: Final = 60
_RECENT: Final = 10
_SENT: Final = frozenset({Delivery.ACCEPTED, Delivery.REJECTED, Delivery.NOT_SENT, Delivery.UNKNOWN})
_GAP: Final = "  "


class Pace:
    """Measures the throughput of a run over the last sixty seconds.

    Args:
        clock: the monotonic clock to measure with.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._seconds: deque[tuple[int, int]] = deque(maxlen=_MINUTE + 1)
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def count(self, number: int = 1) -> None:
        """Count codes that finished now."""
        second = self._second()
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + number)
        else:
            self._seconds.append((second, number))

    def last_minute(self) -> list[int]:
        """Return the codes of each whole second of the last minute, or since the start of a shorter run."""
        now = self._second()
        counts = dict(self._seconds)
        return [counts.get(second, 0) for second in range(max(0, now - _MINUTE), now)]

    def per_second(self) -> float:
        """Return the codes per second over the last ten seconds."""
        recent = self.last_minute()[-_RECENT:]
        return sum(recent) / len(recent) if recent else 0.0

    def eta(self, ended: int, remaining: int | None) -> float | None:
        """Return the seconds that the remaining items will take at the last minute's pace, or None if not known.

        Args:
            ended: codes that were sent and finished; skipped items take no time and do not count.
            remaining: items still to process; None if not known.
        """
        now = self._clock.monotonic()
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, ended))
        while len(self._samples) > 1 and now - self._samples[0][0] > _MINUTE:
            self._samples.popleft()
        then, ended_then = self._samples[0]
        if remaining is None or ended <= ended_then or now <= then:
            return None
        return max(0, remaining) * (now - then) / (ended - ended_then)

    def _second(self) -> int:
        return int(self._clock.monotonic() - self._began)


class Display:
    """Shows the progress of a run.

    Args:
        console: where to print; the display is live if it is a terminal.
        summary: the run's counts, which the run updates.
        total: the number of items; None if not known.
        clock: the clock for durations.
        throttled: whether the run counts its 429s.
    """

    def __init__(
        self, console: Console, summary: BulkSummary, total: int | None, clock: Clock, *, throttled: bool = True
    ) -> None:
        self._console = console
        self._summary = summary
        self._total = total
        self._clock = clock
        self._throttled = throttled
        self._pace = Pace(clock)
        self._began = clock.monotonic()
        self._next_line = self._began + LINE_INTERVAL
        self._live: Live | None = None
        if can_animate(console):
            self._live = Live(self, console=console, auto_refresh=False, transient=True)
        self.state = SENDING
        """The first word of the display: what the run is doing."""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def record(self, outcome: ItemOutcome) -> None:
        """Count an item that finished."""
        if outcome.delivery in _SENT:
            self._pace.count()

    def advance(self, number: int) -> None:
        """Count several items that finished."""
        self._pace.count(number)

    @property
    def elapsed(self) -> float:
        """Seconds since the display was created."""
        return self._clock.monotonic() - self._began

    def print_line(self, text: str) -> None:
        """Print a line, above a live display."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Refresh the live display, or print a status line if one is due."""
        if self._live is not None:
            self._live.refresh()
        elif self._clock.monotonic() >= self._next_line:
            self._next_line = self._clock.monotonic() + LINE_INTERVAL
            self.print_line(self.status_line())

    def status_line(self) -> str:
        """Return the state of the run as one line."""
        elapsed = stopwatch(self.elapsed)
        counts = ", ".join(f"{number:,} {name}" for name, number, _ in self._counts())
        return f"{elapsed} {self.state}: {self._progress()}; {counts}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        progress = Table.grid(padding=(0, 1), expand=True)
        progress.add_column(no_wrap=True)
        progress.add_column(ratio=1)
        progress.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(
            total=self._total or None,
            completed=self._summary.done,
            pulse=not self._total,
            animation_time=self._clock.monotonic(),
        )
        progress.add_row(self.state, bar, self._progress())
        yield progress
        yield from self._count_lines(width)
        yield self._last_minute(width, ascii_only=options.ascii_only)

    def _count_lines(self, width: int) -> list[Text]:
        """Return the counts, wrapped to the width."""
        lines = [Text(no_wrap=True, overflow="ellipsis")]
        for name, number, style in self._counts():
            word = Text(f"{number:,} {name}", style=style if number else "dim")
            if lines[-1] and len(lines[-1]) + len(_GAP) + len(word) > width:
                lines.append(Text(no_wrap=True, overflow="ellipsis"))
            if lines[-1]:
                lines[-1].append(_GAP)
            lines[-1].append_text(word)
        return lines

    def _counts(self) -> list[tuple[str, int, str]]:
        summary = self._summary
        counts = [
            ("accepted", summary.accepted, "green"),
            ("rejected", summary.rejected, "red"),
            ("unknown", summary.unknown, "yellow"),
            *([("429s", summary.throttled, "yellow")] if self._throttled else []),
            ("in flight", summary.in_flight, ""),
        ]
        # Shown only if they occur.
        more = [
            ("not sent", summary.not_sent, "red"),
            ("invalid", summary.invalid, "red"),
            ("skipped", summary.skipped, ""),
        ]
        return counts + [count for count in more if count[1]]

    def _progress(self) -> str:
        summary = self._summary
        done = summary.done
        remaining = None if self._total is None or self.state != SENDING else self._total - done
        eta = self._pace.eta(done - summary.skipped - summary.invalid, remaining)
        if self._total is None:
            where = f"{done:,} done"
        else:
            where = f"{done:,} of {self._total:,} ({done * 100 // max(1, self._total)} %)"
        pace = f"{self._pace.per_second():.{0 if self._pace.per_second() >= 10 else 1}f}/s"
        return _GAP.join([where, pace, *([] if eta is None else [f"{stopwatch(eta)} left"])])

    def _last_minute(self, width: int, *, ascii_only: bool) -> Text:
        label = "last minute "
        seconds = self._pace.last_minute()
        peak = max(seconds, default=0)
        tail = f" {peak}/s peak"
        seconds = seconds[-max(1, width - len(label) - len(tail)) :]
        line = Text(label, no_wrap=True, overflow="crop")
        line.append(sparkline(seconds, ascii_only=ascii_only), style="cyan")
        return line.append(tail, style="dim")


def summary_table(summary: BulkSummary, previous: dict[Delivery | None, int], *, requests: bool = True) -> Table:
    """Return the outcomes of a run's items as a table.

    Args:
        summary: the counts.
        previous: the number of skipped items by their earlier outcome; the key None counts duplicates in the input.
        requests: whether the run counts its requests.
    """
    table = Table(title="delivery outcomes", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    rows: list[tuple[str, int, str]] = [
        (
            "accepted",
            summary.accepted,
            possible_duplicates(summary.possible_duplicates, summary.possible_duplicates_unrecorded),
        ),
        ("rejected", summary.rejected, "rejected by the service; nothing was sent"),
        ("not sent", summary.not_sent, "never left this machine"),
        ("unknown", summary.unknown, "request written, no answer; not sent again"),
        ("invalid", summary.invalid, "bad rows; nothing was sent"),
    ]
    for delivery, remark in (
        (Delivery.ACCEPTED, "accepted by an earlier run, or duplicates in the input"),
        (Delivery.REJECTED, "rejected by an earlier run"),
        (Delivery.UNKNOWN, "duplicates in the input, with an unknown outcome"),
        (None, "duplicates in the input"),
    ):
        if number := previous.get(delivery, 0):
            rows.append(("skipped", number, remark))
    if requests:
        rows += [
            ("attempts", summary.attempts, "HTTP requests in total"),
            ("429s", summary.throttled, "requests throttled by the service"),
        ]
    for name, number, remark in rows:
        table.add_row(name, f"{number:,}", remark)
    table.add_row("codes a second", f"{per_second(summary):.1f}", "while sending")
    table.add_row("seconds", f"{summary.elapsed:.1f}", "in total")
    return table


def per_second(summary: BulkSummary) -> float:
    """Return the codes per second, without those that were not sent."""
    sent = summary.accepted + summary.rejected + summary.unknown
    return sent / summary.elapsed if summary.elapsed else 0.0
