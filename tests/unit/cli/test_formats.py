"""Numbers and durations as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from bandwidth_mfa_async.cli import _formats as formats


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (formats.plural, (0, "row"), "0 rows"),
        (formats.plural, (1, "row"), "1 row"),
        (formats.plural, (1_200, "more day"), "1,200 more days"),
        (formats.share, (0, 10), "0 %"),
        (formats.share, (10, 10), "100 %"),
        (formats.share, (1, 10_000_000), "< 0.1 %"),
        (formats.share, (9_999_999, 10_000_000), "> 99.9 %"),
        (formats.share, (0, 0), "0 %"),
        (formats.share, (1, 3), "33.3 %"),
        (formats.duration, (0.2,), "under 1 s"),
        (formats.duration, (59.6,), "1 min"),
        (formats.duration, (11_525,), "3 h 12 min"),
        (formats.duration, (3_605,), "1 h"),
        (formats.duration, (30 * 86_400,), "30 d"),
        (formats.stopwatch, (59.6,), "0:01:00"),
        (formats.stopwatch, (11_525,), "3:12:05"),
        (formats.latency, (0.1122,), "110 ms"),
        (formats.latency, (0.00112,), "1.1 ms"),
        (formats.latency, (1.26,), "1.3 s"),
        (formats.latency, (0.000_05,), "50 µs"),
        (formats.latency, (90_000,), "90,000 s"),
        (formats.rate, (0.0167,), "1 a minute"),
        (formats.rate, (1_234.5,), "1,234 a second"),
        (formats.rate, (0.001,), "3.6 an hour"),
        (formats.rate, (0.0,), "0 a second"),
    ],
)
def test_numbers_and_durations_are_formatted_for_people(function: Any, arguments: tuple[Any, ...], said: str) -> None:
    """Two or three digits and a suitable unit; never rounded to 0 % or 100 %."""
    assert function(*arguments) == said


@pytest.mark.parametrize(
    ("numbers", "ascii_only", "line"),
    [
        ([0, 1, 50, 100], False, " ▁▄█"),
        ([0, 1, 50, 100], True, " _:#"),
        ([0, 0.001, 1_000_000], False, " ▁█"),
        ([0, 0], False, "  "),
        ([], True, ""),
    ],
)
def test_a_sparkline_shows_every_number_above_zero(numbers: list[float], ascii_only: bool, line: str) -> None:
    """Zero is blank."""
    assert formats.sparkline(numbers, ascii_only=ascii_only) == line
