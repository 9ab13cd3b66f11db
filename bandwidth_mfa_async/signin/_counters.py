"""Counters of texts: sliding windows, and leaky buckets of unverified texts. `lua/_counters.lua` means the same.

The buckets and their thresholds are authgear's published policy against SMS pumping (authgear-server, commit 020e789,
docs/specs/fraud-protection.md and pkg/lib/fraudprotection): a bucket leaks its threshold in its period; per country
``max(20, 20 % of the best day of the last 14, 20 % of the last 24 h)`` a day and ``max(3, a sixth of that, 20 % of the
last hour)`` an hour; per address ``max(10, 20 %)`` a day and ``max(5, a sixth of 20 %)`` an hour of what it verified in
24 h. Buckets of prefixes are ours and have the thresholds of addresses; see `Admission._counts_for_region`. Levels are
thousandths of a text, because the same sums must give the same numbers in Lua.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..stores import StoredRecord

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
TEXT: Final = 1_000
"""One text, in thousandths."""
PER_MILLE: Final = 200
"""Unverified texts that are allowed for each 1,000 verified ones."""
EXACT_LIMIT: Final = 64
"""Windows up to this limit are exact; those above it count in sixtieths of their period, rounded up."""
HOURS_KEPT: Final = 48
DAYS_KEPT: Final = 14

Rules = list[list[int]]
"""Limits: pairs of a number of texts and a period in ms."""
Windows = dict[str, dict[str, int]]
"""Texts by period and time, both in ms."""


def load(record: StoredRecord | None, name: str) -> Any:
    """Return the JSON object in a field of a record; an empty one if there is none."""
    text = "" if record is None else record.get(name, "")
    return json.loads(text) if text else {}


def dump(value: Any) -> str:
    """Return JSON."""
    return json.dumps(value, separators=(",", ":"))


def _slot(limit: int, period: int, at: int) -> int:
    quantum = _quantum(limit, period)
    return -(-at // quantum) * quantum


def _quantum(limit: int, period: int) -> int:
    return 1 if limit <= EXACT_LIMIT else -(-period // 60)


def window_wait(windows: Windows, rules: Rules, now: int) -> int:
    """Return the milliseconds until one more text is within all limits; 0 if it is now."""
    wait = 0
    for limit, period in rules:
        slots = sorted((int(at), n) for at, n in windows.get(str(period), {}).items())
        # A slot of the future is left over from a clock that was set back.
        slots = [(at, n) for at, n in slots if now - period < at <= now + _quantum(limit, period)]
        excess = sum(n for _, n in slots) - limit
        for at, n in slots:
            if excess < 0:
                break
            excess -= n
            wait = max(wait, at + period - now)
    return wait


def window_add(windows: Windows, rules: Rules, at: int, n: int, now: int) -> None:
    """Count `n` texts at a time; a negative number takes back texts that were counted for it."""
    for limit, period in rules:
        slots = windows.setdefault(str(period), {})
        quantum = _quantum(limit, period)
        for key in [key for key in slots if not now - period < int(key) <= now + quantum]:
            del slots[key]
        slot = str(_slot(limit, period, at))
        if n > 0 or slot in slots:
            slots[slot] = slots.get(slot, 0) + n
            if slots[slot] <= 0:
                del slots[slot]


def longest(rules: Rules) -> int:
    """Return the longest period of the rules in ms."""
    return max((period for _, period in rules), default=0)


def level(bucket: Sequence[int] | None, threshold: int, period: int, now: int) -> int:
    """Return what a bucket holds now, in thousandths of a text."""
    if not bucket:
        return 0
    held, since = min(bucket[0], threshold), bucket[1]
    elapsed = min(now - since, period)
    if elapsed < 0:  # a clock that was set back
        elapsed = period if -elapsed > period else 0
    # In floats, as Lua computes.
    return max(0, held - math.floor(float(elapsed) * float(threshold) / float(period)))


class Budget:
    """The hourly and the daily bucket of one visitor, prefix or region.

    Args:
        record: the stored record.
        thresholds: those of an hour and of a day, in thousandths of a text.
        now: Unix time in ms.
    """

    def __init__(self, record: StoredRecord | None, thresholds: tuple[int, int], now: int) -> None:
        self._now = now
        stored = load(record, "b")
        self._buckets = [
            (name, level(stored.get(name), threshold, period, now), threshold, period)
            for name, threshold, period in (("h", thresholds[0], HOUR), ("d", thresholds[1], DAY))
        ]

    @property
    def holds(self) -> int:
        """What the daily bucket holds now, in thousandths of a text."""
        return self._buckets[1][1]

    def wait(self) -> int:
        """Return the milliseconds until the buckets have room for one more text; 0 if they have."""
        return max(
            math.ceil(float(held + TEXT - threshold) * float(period) / float(threshold))
            if held + TEXT > threshold
            else 0
            for _, held, threshold, period in self._buckets
        )

    def filled(self, texts: int) -> str:
        """Return the buckets to store after `texts` more; a negative number drains them."""
        return dump({name: [max(0, held + TEXT * texts), self._now] for name, held, _, _ in self._buckets})


def recent(counts: dict[str, int], index: int, span: int) -> int:
    """Return the sum of the last `span` counts up to an index."""
    return sum(n for key, n in counts.items() if index - span < int(key) <= index)


def pruned(counts: dict[str, Any], index: int, span: int) -> dict[str, Any]:
    """Return the last `span` entries up to an index, and later ones."""
    return {key: n for key, n in counts.items() if int(key) > index - span}


def visitor_thresholds(record: StoredRecord | None, now: int) -> tuple[int, int]:
    """Return the thresholds of a visitor or a prefix for an hour and a day, in thousandths of a text."""
    share = recent(load(record, "g"), now // HOUR, 24) * PER_MILLE
    return max(5 * TEXT, share // 6), max(10 * TEXT, share)


def region_thresholds(record: StoredRecord | None, expected: int, now: int) -> tuple[int, int]:
    """Return the thresholds of a region for an hour and a day, in thousandths of a text.

    Args:
        record: the region's record.
        expected: verified texts a day that the application expects; stands in for history.
        now: Unix time in ms.
    """
    verified = {key: counts[1] for key, counts in load(record, "h").items()}
    best = _best(load(record, "d").items(), now // DAY)
    daily = max(20 * TEXT, max(best, expected) * PER_MILLE, recent(verified, now // HOUR, 24) * PER_MILLE)
    return max(3 * TEXT, daily // 6, recent(verified, now // HOUR, 2) * PER_MILLE), daily


def _best(days: Iterable[tuple[str, int]], today: int) -> int:
    return max((n for day, n in days if today - DAYS_KEPT < int(day) <= today), default=0)
