"""How a run of any length becomes a few hundred points and a few percentiles. No I/O."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS: Final = 240
"""The most points a timeline has: about three pixels each on a wide screen."""
MIN_POINTS: Final = 30
MAX_INTERVALS: Final = 24
BUCKETS_A_DECADE: Final = 10

_WIDTHS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@frozen
class Interval:
    """A time in which a run was at work.

    Attributes:
        start: the first second, seconds since the epoch.
        stop: the second after the last one.
    """

    start: int
    stop: int

    @property
    def seconds(self) -> int:
        """How long it lasted."""
        return self.stop - self.start


def merge_intervals(stretches: Sequence[Interval], most: int = MAX_INTERVALS) -> list[Interval]:
    """Return the stretches with those joined whose pause is too short to be told apart.

    A pause below a fiftieth of the working time is left in the picture as idle time; so are the shortest ones of
    too many.

    Args:
        stretches: in the order of time, without overlap.
        most: how many may be left.
    """
    pauses = sorted(later.start - earlier.stop for earlier, later in itertools.pairwise(stretches))
    working = sum(stretch.seconds for stretch in stretches)
    shortest_kept = max(2, working // 50 + 1)
    if len(pauses) >= most:
        shortest_kept = max(shortest_kept, pauses[len(pauses) - most] + 1)
    joined: list[Interval] = []
    for stretch in stretches:
        if joined and stretch.start - joined[-1].stop < shortest_kept:
            joined[-1] = Interval(joined[-1].start, stretch.stop)
        else:
            joined.append(stretch)
    return joined


def width_for(stretches: Sequence[Interval], codes: int = 0) -> int:
    """Return the seconds a point must stand for, so that there are at most `POINTS` of them.

    A slow run gets wider points, so that it is a line and not a comb: about five codes each.

    Args:
        stretches: what is to be shown; not more of them than `POINTS`.
        codes: how many are in them.
    """
    seconds = sum(stretch.seconds for stretch in stretches)
    least = min(5 * seconds / codes, seconds / MIN_POINTS) if codes else 0

    def fits(width: int) -> bool:
        return width >= least and sum(-(-stretch.seconds // width) for stretch in stretches) <= POINTS

    for width in _WIDTHS:
        if fits(width):
            return width
    width = 2 * _WIDTHS[-1]
    while not fits(width):
        width *= 2
    return width


def cut(stretch: Interval, width: int) -> list[Interval]:
    """Return the stretch in pieces of `width` seconds; the last one may be shorter."""
    edges = range(stretch.start, stretch.stop, width)
    return [Interval(edge, min(edge + width, stretch.stop)) for edge in edges]


def bucket_bounds(bucket: int) -> tuple[float, float]:
    """Return the seconds between which a latency bucket lies: the lower bound belongs to it, the upper does not."""
    return 10 ** (bucket / BUCKETS_A_DECADE) / 1e6, 10 ** ((bucket + 1) / BUCKETS_A_DECADE) / 1e6


def percentile_bucket(counts: Sequence[tuple[int, int]], percent: float) -> int:
    """Return the bucket that holds a percentile, by nearest rank.

    Args:
        counts: pairs of bucket and count, in the order of buckets, with at least one count above 0.
        percent: from 0 to 100.
    """
    rank = max(1, math.ceil(percent / 100 * sum(count for _, count in counts)))
    for (bucket, _), reached in zip(counts, itertools.accumulate(count for _, count in counts), strict=True):
        if reached >= rank:
            return bucket
    raise ValueError("there is nothing to take a percentile of")
