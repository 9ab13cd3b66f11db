"""Formats numbers, durations and times as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = " _.-:=+*#"


def sparkline(numbers: Sequence[float], *, ascii_only: bool) -> str:
    """Return numbers as one line of blocks, scaled to the largest; one above zero is always visible.

    Args:
        numbers: at least 0 each.
        ascii_only: whether the terminal has no block characters.
    """
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    largest, top = max(numbers, default=0), len(blocks) - 1
    return "".join(blocks[max(1, round(top * number / largest)) if number else 0] for number in numbers)


def stopwatch(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``, for a live display: its width does not change with every second."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


def count(number: int) -> str:
    """Return a number with thousands separators."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return a number of things: ``1 row``, ``2 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def items(number: int) -> str:
    """Return a number of items: ``1 item``, ``2 items``."""
    return plural(number, "item")


def possible_duplicates(number: int, unrecorded: int) -> str:
    """Return the numbers of accepted items that are possible duplicates, and of those of which it is not recorded."""
    text = plural(number, "possible duplicate")
    return f"{text}; not recorded for {unrecorded:,} by an older version" if unrecorded else text


def share(part: int, whole: int) -> str:
    """Return a share in percent; a part above zero and below the whole is never rounded to 0 % or 100 %."""
    if not whole or part in {0, whole}:
        return "100 %" if whole and part else "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    if percent > 99.9:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def significant(number: float) -> str:
    """Return a number with three significant digits, thousands separators and no exponent."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}".removesuffix(".0") if number >= 10 else f"{number:.2f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``3 h 12 min``."""
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, whole = divmod(whole, length)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def latency(seconds: float) -> str:
    """Return a latency with two significant digits: ``110 ms``."""
    number, unit = (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms")
    if number < 1:
        number, unit = seconds * 1e6, "µs"
    return f"{float(f'{number:.2g}'):,.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"


def timestamp(when: datetime) -> str:
    """Return a date and time to the second; the time zone, always UTC, is left out."""
    return f"{when:%Y-%m-%d %H:%M:%S}"


def rate_unit(per_second: float) -> tuple[float, str]:
    """Return a factor and a unit that show a rate as a number of about 1 or more: a second, a minute or an hour."""
    if per_second >= 0.95 or not per_second:
        return 1.0, "a second"
    return (60.0, "a minute") if per_second * 60 >= 0.95 else (3_600.0, "an hour")


def rate(per_second: float) -> str:
    """Return a rate with its unit: ``12 a minute``."""
    factor, unit = rate_unit(per_second)
    return f"{significant(per_second * factor)} {unit}"
