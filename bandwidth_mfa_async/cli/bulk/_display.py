"""What a person sees of a bulk run: live on a terminal, a line every ten seconds elsewhere, a table at the end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...errors import Delivery
from .._formats import format_duration

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console, ConsoleOptions, RenderResult

    from ..._clock import Clock
    from ...bulk import BulkSummary, ItemOutcome

REFRESH: Final = 0.25
SENDING: Final = "sending"
PLAIN_EVERY: Final = 10.0
_MINUTE: Final = 60
_RECENT: Final = 10
_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.-:=+*#"
_SENT: Final = frozenset({Delivery.ACCEPTED, Delivery.REJECTED, Delivery.NOT_SENT, Delivery.UNKNOWN})
_GAP: Final = "  "


class Pace:
    """How many codes ended in each of the last sixty seconds, and how fast a run gets on.

    Args:
        clock: whose time counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._seconds: deque[tuple[int, int]] = deque(maxlen=_MINUTE + 1)
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])

    def count(self, number: int = 1) -> None:
        """Count one code, or more, now."""
        second = self._second()
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + number)
        else:
            self._seconds.append((second, number))

    def last_minute(self) -> list[int]:
        """Return the codes of each whole second of the last minute, or of the run where it is younger."""
        now = self._second()
        counts = dict(self._seconds)
        return [counts.get(second, 0) for second in range(max(0, now - _MINUTE), now)]

    def per_second(self) -> float:
        """Return the codes a second of the last ten seconds."""
        recent = self.last_minute()[-_RECENT:]
        return sum(recent) / len(recent) if recent else 0.0

    def left(self, ended: int, rest: int | None) -> float | None:
        """Return the seconds that the rest will take at the last minute's pace; None when nobody can say.

        Args:
            ended: codes that were sent for and ended; what was skipped took no time.
            rest: items still to come; None when that is not known.
        """
        now = self._clock.monotonic()
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, ended))
        while len(self._marks) > 1 and now - self._marks[0][0] > _MINUTE:
            self._marks.popleft()
        then, ended_then = self._marks[0]
        if rest is None or ended <= ended_then or now <= then:
            return None
        return max(0, rest) * (now - then) / (ended - ended_then)

    def _second(self) -> int:
        return int(self._clock.monotonic() - self._began)


class Display:
    """Shows a run while it goes on.

    Args:
        console: where; live when it is a terminal.
        summary: the run's counts, which the run keeps up to date.
        total: items in all; None when that is not known.
        clock: whose time is shown.
        throttled: whether the run knows of its 429s.
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
        self._next_line = self._began + PLAIN_EVERY
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(self, console=console, auto_refresh=False, transient=True)
        self.state = SENDING
        """The first word of the display; another one once the run is being stopped."""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, outcome: ItemOutcome) -> None:
        """Take note of an item's end."""
        if outcome.delivery in _SENT:
            self._pace.count()

    def advance(self, number: int) -> None:
        """Take note of so many ends at once."""
        self._pace.count(number)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock.monotonic() - self._began

    def say(self, text: str) -> None:
        """Print a line, above the display where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Bring the display up to date, or print a line if one is due."""
        if self._live is not None:
            self._live.refresh()
        elif self._clock.monotonic() >= self._next_line:
            self._next_line += PLAIN_EVERY
            self.say(self.line())

    def line(self) -> str:
        """Return the whole state as one line."""
        elapsed = format_duration(self.elapsed)
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
        yield from self._packed(width)
        yield self._sparkline(width, _ASCII_BARS if options.ascii_only else _BARS)

    def _packed(self, width: int) -> list[Text]:
        """Lay the counts out over as many lines as the width asks for."""
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
        # These are rare, and only shown when there are some.
        more = [
            ("not sent", summary.not_sent, "red"),
            ("invalid", summary.invalid, "red"),
            ("done before", summary.skipped, ""),
        ]
        return counts + [count for count in more if count[1]]

    def _progress(self) -> str:
        summary = self._summary
        done = summary.done
        rest = None if self._total is None or self.state != SENDING else self._total - done
        left = self._pace.left(done - summary.skipped - summary.invalid, rest)
        if self._total is None:
            where = f"{done:,} done"
        else:
            where = f"{done:,} of {self._total:,} ({done * 100 // max(1, self._total)} %)"
        pace = f"{self._pace.per_second():.{0 if self._pace.per_second() >= 10 else 1}f}/s"
        return _GAP.join([where, pace, *([] if left is None else [f"{format_duration(left)} left"])])

    def _sparkline(self, width: int, bars: str) -> Text:
        label = "last minute "
        seconds = self._pace.last_minute()
        most = max(seconds, default=0)
        tail = f" {most}/s at most"
        seconds = seconds[-max(1, width - len(label) - len(tail)) :]
        line = Text(label, no_wrap=True, overflow="crop")
        for number in seconds:
            line.append(bars[-(-number * (len(bars) - 1) // most)] if number else " ", style="cyan")
        return line.append(tail, style="dim")


def summary_table(summary: BulkSummary, previous: dict[Delivery | None, int], *, requests: bool = True) -> Table:
    """Return what became of a run's items, as a table.

    Args:
        summary: the counts.
        previous: of the skipped ones, what became of them before; None where they stand in the input twice.
        requests: whether the run knows how many requests were made.
    """
    table = Table(title="what became of the codes", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    rows: list[tuple[str, int, str]] = [
        ("accepted", summary.accepted, f"{summary.possible_duplicates:,} of them perhaps twice"),
        ("rejected", summary.rejected, "refused by the service: nothing was sent"),
        ("not sent", summary.not_sent, "never left this machine"),
        ("unknown", summary.unknown, "written, and no answer: not sent again"),
        ("invalid", summary.invalid, "bad rows: nothing was sent"),
    ]
    for delivery, remark in (
        (Delivery.ACCEPTED, "accepted by an earlier run, or twice in the input"),
        (Delivery.REJECTED, "refused for good by an earlier run"),
        (Delivery.UNKNOWN, "twice in the input, and unknown"),
        (None, "twice in the input"),
    ):
        if number := previous.get(delivery, 0):
            rows.append(("done before", number, remark))
    if requests:
        rows += [
            ("attempts", summary.attempts, "requests in all"),
            ("429s", summary.throttled, "answers that asked us to slow down"),
        ]
    for name, number, remark in rows:
        table.add_row(name, f"{number:,}", remark)
    table.add_row("codes a second", f"{per_second(summary):.1f}", "while sending")
    table.add_row("seconds", f"{summary.elapsed:.1f}", "in all")
    return table


def per_second(summary: BulkSummary) -> float:
    """Return the codes that ended a second, without those that were not sent for."""
    sent = summary.accepted + summary.rejected + summary.unknown
    return sent / summary.elapsed if summary.elapsed else 0.0
