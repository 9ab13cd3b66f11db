"""What a person sees of a bulk run: the scan's progress, the live display, and its lines for logs."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from bandwidth_mfa_async import BulkSummary, Delivery, ItemOutcome
from bandwidth_mfa_async.cli.bulk._display import Display, Pace
from bandwidth_mfa_async.cli.bulk._scan_progress import ScanProgress
from bandwidth_mfa_async.testing import ManualClock


@pytest.mark.parametrize("size", [None, 1_000, 456_700_000])
@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (20, ["check", "12,345,678"]),
        (40, ["checking ━", "12,345,678 rows"]),
        (60, ["checking ━", "12,345,678 rows", "left"]),
        (80, ["checking ━", "/", "12,345,678 rows", "left"]),
        (200, ["checking ━", "/", "12,345,678 rows", "left"]),
    ],
)
def test_the_scan_progress_is_one_line(width: int, parts: list[str], size: int | None) -> None:
    """At any width: a narrow terminal hides the bytes first, then the time left, which a pipe does not have."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    progress = ScanProgress(console)
    progress.add_task("", total=size, completed=123_400_000, rows=12_345_678)
    console.print(progress.get_renderable())
    (line,) = out.getvalue().splitlines()
    assert width - 1 <= len(line) <= width
    assert [part for part in parts if part not in line] == (["left"] if size is None and "left" in parts else [])
    assert ("left" in line) == (size is not None and width >= 50)


def shown(
    width: int, summary: BulkSummary, total: int | None, clock: ManualClock, **options: Any
) -> tuple[Any, Display]:
    out = io.StringIO()
    console = Console(file=out, width=width, **options)
    return out, Display(console, summary, total, clock)


def outcome(delivery: Delivery) -> ItemOutcome:
    return ItemOutcome(0, "", None, delivery)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("total", [10_000_000, None])
def test_the_display_fits_its_width(width: int, total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large numbers fit too, and the sparkline uses the available width."""
    monkeypatch.setenv("TERM", "xterm-256color")
    clock = ManualClock()
    summary = BulkSummary(
        taken=9_999_999,
        accepted=9_000_000,
        rejected=123_456,
        unknown=12_345,
        throttled=1_234_567,
        in_flight=10_000,
        invalid=12_345,
        skipped=765_432,
        not_sent=3,
    )
    _, display = shown(width, summary, total, clock, force_terminal=True)
    for second in range(70):
        for _ in range(second % 9 * 100):
            display.record(outcome(Delivery.ACCEPTED))
        clock.tick(1)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    lines = ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(display)]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in ("9,000,000 accepted", "123,456 rejected", "12,345 unknown", "1,234,567 429s", "800/s peak"):
        assert word in text
    assert lines[-1].startswith("last minute ")
    bars = sum(char in " ▁▂▃▄▅▆▇█" for char in lines[-1].removeprefix("last minute ").removesuffix(" 800/s peak"))
    assert bars == min(60, width - len("last minute ") - len(" 800/s peak"))
    if width == 200:
        assert len(lines) == 3


def test_no_color_disables_colours_and_animation(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, https://no-color.org: lines as without a terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    summary = BulkSummary(taken=5, accepted=3, rejected=2)

    def drawn() -> str:
        clock = ManualClock()
        out, display = shown(80, summary, 10, clock, force_terminal=True)
        with display:
            clock.tick(10)
            display.tick()
        return out.getvalue()

    assert re.search(r"\x1b\[[0-9;]*3[0-9]", drawn())
    monkeypatch.setenv("NO_COLOR", "1")
    (line,) = drawn().splitlines()
    assert line.startswith("0:00:10 sending: 5 of 10")


@pytest.mark.parametrize("terminal", ["dumb", None])
def test_without_a_terminal_one_line_is_printed_every_ten_seconds(
    terminal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain text for logs."""
    if terminal is not None:
        monkeypatch.setenv("TERM", terminal)
    clock, summary = ManualClock(), BulkSummary()
    out, display = shown(40, summary, 4_000, clock, force_terminal=terminal is not None)
    with display:
        for _ in range(100):
            for _ in range(25):
                summary.accepted += 1
                display.record(outcome(Delivery.ACCEPTED))
            clock.tick(0.25)
            display.tick()
    zeros = "0 rejected, 0 unknown, 0 429s, 0 in flight"
    assert out.getvalue().splitlines() == [
        f"0:00:10 sending: 1,000 of 4,000 (25 %)  100/s  0:00:30 left; 1,000 accepted, {zeros}",
        f"0:00:20 sending: 2,000 of 4,000 (50 %)  100/s  0:00:20 left; 2,000 accepted, {zeros}",
    ]


def test_a_suspension_is_followed_by_one_line() -> None:
    """The lines that were missed do not come in a burst; the next one comes ten seconds later."""
    clock = ManualClock()
    out, display = shown(80, BulkSummary(), 10, clock)
    for seconds in (605, 0.25, 0.25, 9, 0.5):
        clock.tick(seconds)
        display.tick()
    assert [line[:7] for line in out.getvalue().splitlines()] == ["0:10:05", "0:10:15"]


def test_pace_counts_the_last_minute_and_estimates_the_rest() -> None:
    """It counts whole seconds; the estimate uses the last minute's pace, not the whole run's."""
    clock = ManualClock()
    pace = Pace(clock)
    assert (pace.last_minute(), pace.per_second(), pace.eta(0, 100)) == ([], 0.0, None)
    done = 0
    for second in range(200):
        for _ in range(1 if second < 100 else 5):
            pace.count()
            done += 1
        clock.tick(1)
        left = pace.eta(done, 1_000 - done)
        assert left is not None
    assert pace.last_minute() == [5] * 60
    assert pace.per_second() == 5.0
    assert left == pytest.approx((1_000 - done) / 5)
    assert pace.eta(done, None) is None
    clock.tick(30)
    assert pace.last_minute() == [5] * 30 + [0] * 30
    assert pace.per_second() == 0.0
