"""Counts what was written in windows of time."""

from __future__ import annotations

import math


def fullest_window(writes, seconds):
    """Return the most segments in any window [t, t + seconds) with more than one write; `writes` are (time, weight)."""
    writes = sorted(writes)
    most = first = total = 0
    for last, (at, weight) in enumerate(writes):
        total += weight
        while at - writes[first][0] >= seconds:
            total -= writes[first][1]
            first += 1
        if last > first or weight == 1:  # a text heavier than the rate is alone
            most = max(most, total)
    return most


def assert_windows(writes, rate):
    """Assert that no second holds more than the rate (at least 1), and no period more than the count."""
    assert fullest_window(writes, 1.0) <= max(1, math.ceil(rate.per_second))
    if rate.count >= 1:
        assert fullest_window(writes, rate.per) <= math.floor(rate.count)
