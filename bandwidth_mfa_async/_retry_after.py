"""Parses how long a response asks to wait: `Retry-After` in its forms, and the hint in an error's text."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]+)?", re.ASCII)
_WAIT_HINT = re.compile(r"wait\s+([0-9]{1,4})\s+(second|minute|hour)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def seconds(text: str | None) -> float | None:
    """Parse a finite number of seconds, at least 0, from a header or a token's lifetime; None for anything else."""
    # float() alone would accept "nan", "inf", "1_000", "+5" and Arabic digits.
    if text is None or not _SECONDS.fullmatch(text := text.strip(" \t")):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds a response asks to wait, or None if it has no valid value.

    `retry-after-ms` first, then `Retry-After` in seconds (fractions allowed), then as an HTTP date relative to the
    response's own `Date`. No MFA response is documented to carry any of them; other Bandwidth APIs' responses do.

    Args:
        headers: the response's headers, case-insensitive.
        now: wall time in seconds, used for a date if the response has no `Date`.
    """
    if (milliseconds := seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After")
    if text is None:
        return None
    if (value := seconds(text)) is not None:
        return value
    until = _http_date(text)
    if until is None:
        return None
    sent = _http_date(headers.get("Date", ""))
    return max(0.0, until - (now if sent is None else sent))


def _http_date(text: str) -> float | None:
    if not text.isascii() or ("," not in text and ":" not in text):
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:  # asctime dates and "-0000" are parsed as naive; HTTP dates are always UTC
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def parse_wait_hint(text: str | None) -> float | None:
    """Return the seconds that an error's text asks to wait, as in "please wait 2 minutes", or None."""
    match = _WAIT_HINT.search(text or "")
    return float(match[1]) * _UNITS[match[2].lower()] if match else None
