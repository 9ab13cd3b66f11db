"""The data classes of a report on a journal."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - cattrs reads the annotations
from typing import Literal, TypeAlias

from attrs import frozen

Ending: TypeAlias = Literal["finished", "stopped", "failed", "running", "killed", "unfinished"]
"""How a session ended; `unfinished` if it cannot be determined whether it still runs."""

Resume: TypeAlias = Literal["yes", "no", "at_least_once"]
"""Whether the next run with the journal sends an item again; `at_least_once`: only under `Resend.AT_LEAST_ONCE`."""


@frozen(kw_only=True)
class Counts:
    """Number of items in each state; the sum is the number of items in the journal.

    Attributes:
        pending: read from the input and not sent yet.
        sending: intent stored, no result yet: in flight, or interrupted by a kill.
        accepted: accepted by the service, which returned an id.
        rejected: rejected by the service; nothing was sent.
        not_sent: the request was never written.
        unknown: the request was written, and no trustworthy answer came.
        invalid: the item breaks a rule, so no request was made.
    """

    pending: int = 0
    sending: int = 0
    accepted: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    invalid: int = 0


@frozen(kw_only=True)
class SessionReport:
    """One session: the time between opening the journal for sending and closing it.

    Attributes:
        number: 1 for the journal's first session.
        started: start time.
        ended: end time; None if the session still runs or was killed.
        ending: how it ended.
    """

    number: int
    started: datetime
    ended: datetime | None
    ending: Ending


@frozen(kw_only=True)
class Point:
    """Results in one interval of a run.

    Attributes:
        start: start of the interval.
        seconds: length of the interval.
        accepted, rejected, not_sent, unknown, invalid: number of items with this outcome.
        throttled: attempts answered with 429, retried or not.
    """

    start: datetime
    seconds: int
    accepted: int
    rejected: int
    not_sent: int
    unknown: int
    invalid: int
    throttled: int

    @property
    def codes(self) -> int:
        """Number of results except invalid items, for which no request is made."""
        return self.accepted + self.rejected + self.not_sent + self.unknown


@frozen(kw_only=True)
class Span:
    """A period in which the run was active, without a pause that is long enough to show.

    Attributes:
        start: start of the period.
        seconds: length of the period.
        points: the period in intervals.
    """

    start: datetime
    seconds: int
    points: tuple[Point, ...]


@frozen(kw_only=True)
class Timeline:
    """A run over time; no session ran between two spans.

    Attributes:
        point_seconds: length of a point's interval; the last one of a span may be shorter.
        spans: in order of time, with at most 240 points in total.
    """

    point_seconds: int
    spans: tuple[Span, ...]


@frozen(kw_only=True)
class Totals:
    """Totals of a run.

    Attributes:
        items: number of items in the journal.
        input_items: number of items in the whole input, as checked before the run; None if the run did not record it.
        not_taken: items of the input that no run has taken yet; 0 if that is not known.
        ended: number of results; an item that was sent again by a later session has more than one.
        throttled: attempts answered with 429.
        working_seconds: time in which the run was active, without the pauses between sessions.
        codes_per_second: results of requests per working second.
        busiest_per_second: the highest such rate of a point in the timeline.
    """

    items: int
    input_items: int | None
    not_taken: int
    ended: int
    throttled: int
    working_seconds: int
    codes_per_second: float
    busiest_per_second: float


@frozen(kw_only=True)
class Bucket:
    """Number of answered items whose last attempt took between `low` and `high` seconds."""

    low: float
    high: float
    count: int


@frozen(kw_only=True)
class Percentile:
    """A latency percentile of the answered items.

    Attributes:
        percent: percentage of the answered items that were at least as fast.
        value: geometric middle of the percentile's bucket, in seconds.
        low, high: bounds of the bucket; the exact value lies between them.
    """

    percent: int
    value: float
    low: float
    high: float


@frozen(kw_only=True)
class Latency:
    """Latency of the last attempt of answered items.

    Attributes:
        answered: number of measured items.
        resolution: ratio of a bucket's upper to its lower bound.
        buckets: fastest first, without the empty ones at both ends.
        percentiles: 50, 90 and 99; empty if nothing was answered.
    """

    answered: int
    resolution: float
    buckets: tuple[Bucket, ...]
    percentiles: tuple[Percentile, ...]


@frozen(kw_only=True)
class FailureReport:
    """The items that were not accepted for one cause.

    Attributes:
        status: `rejected`, `not_sent`, `unknown` or `invalid`.
        cause: class name of the error, or `InterruptedRun`; None if the journal has none.
        http_status: HTTP status of the answer, if there was one.
        count: number of items.
        meaning: one line that says what happened.
        resume: whether the next run with the journal sends these items again.
    """

    status: str
    cause: str | None
    http_status: int | None
    count: int
    meaning: str
    resume: Resume
