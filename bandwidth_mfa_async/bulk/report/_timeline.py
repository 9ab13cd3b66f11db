"""Aggregation of a run of any length into a few hundred points and a few percentiles."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_POINTS: Final = 240
"""Maximum number of points in a timeline: about three pixels each on a wide screen."""
MIN_POINTS: Final = 30
MAX_INTERVALS: Final = 24
BUCKETS_PER_DECADE: Final = 10

_POINT_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@frozen
class Interval:
    """A period in which a run was active.

    Attributes:
        start: the first second, seconds since the epoch.
        stop: the second after the last one.
    """

    start: int
    stop: int

    @property
    def seconds(self) -> int:
        """Length of the interval."""
        return self.stop - self.start


def merge_intervals(intervals: Sequence[Interval], limit: int = MAX_INTERVALS) -> list[Interval]:
    """Merge intervals that are separated by a pause too short to show.

    A pause below a fiftieth of the working time is shown as idle time. If more than `limit` intervals would remain, the
    shortest pauses are shown as idle time too.

    Args:
        intervals: in order of time, without overlap.
        limit: maximum number of intervals to return.
    """
    pauses = sorted(later.start - earlier.stop for earlier, later in itertools.pairwise(intervals))
    working = sum(interval.seconds for interval in intervals)
    shortest_kept = max(2, working // 50 + 1)
    if len(pauses) >= limit:
        shortest_kept = max(shortest_kept, pauses[len(pauses) - limit] + 1)
    merged: list[Interval] = []
    for interval in intervals:
        if merged and interval.start - merged[-1].stop < shortest_kept:
            merged[-1] = Interval(merged[-1].start, interval.stop)
        else:
            merged.append(interval)
    return merged


def choose_point_seconds(intervals: Sequence[Interval], codes: int = 0) -> int:
    """Return the seconds per point that give at most `MAX_POINTS` points.

    A slow run gets longer points of about five codes each; shorter ones would alternate between zero and one code.

    Args:
        intervals: at most `MAX_POINTS` intervals.
        codes: number of codes in them.
    """
    seconds = sum(interval.seconds for interval in intervals)
    minimum = min(5 * seconds / codes, seconds / MIN_POINTS) if codes else 0

    def fits(point_seconds: int) -> bool:
        return (
            point_seconds >= minimum
            and sum(-(-interval.seconds // point_seconds) for interval in intervals) <= MAX_POINTS
        )

    for point_seconds in _POINT_SECONDS:
        if fits(point_seconds):
            return point_seconds
    point_seconds = 2 * _POINT_SECONDS[-1]
    while not fits(point_seconds):
        point_seconds *= 2
    return point_seconds


def split(interval: Interval, point_seconds: int) -> list[Interval]:
    """Split an interval into intervals of `point_seconds` seconds; the last one may be shorter."""
    edges = range(interval.start, interval.stop, point_seconds)
    return [Interval(edge, min(edge + point_seconds, interval.stop)) for edge in edges]


def bucket_bounds(bucket: int) -> tuple[float, float]:
    """Return the bounds of a latency bucket in seconds; the lower one is inclusive, the upper one exclusive."""
    return 10 ** (bucket / BUCKETS_PER_DECADE) / 1e6, 10 ** ((bucket + 1) / BUCKETS_PER_DECADE) / 1e6


def percentile_bucket(counts: Sequence[tuple[int, int]], percent: float) -> int:
    """Return the bucket that contains a percentile, by nearest rank.

    Args:
        counts: pairs of bucket and count, in order of buckets, with at least one count above 0.
        percent: from 0 to 100.
    """
    rank = max(1, math.ceil(percent / 100 * sum(count for _, count in counts)))
    for (bucket, _), reached in zip(counts, itertools.accumulate(count for _, count in counts), strict=True):
        if reached >= rank:
            return bucket
    raise ValueError("a percentile needs at least one value")
