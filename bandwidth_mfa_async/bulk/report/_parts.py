"""What a report on a journal consists of. No I/O."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - cattrs reads the annotations
from typing import Literal, TypeAlias

from attrs import frozen

Ending: TypeAlias = Literal["finished", "stopped", "failed", "running", "killed", "unfinished"]
"""How a session ended; `unfinished` where it cannot be seen whether it still runs."""

Resume: TypeAlias = Literal["yes", "no", "at_least_once"]
"""Whether the next run with the journal tries an item again; `at_least_once`: only under `Resend.AT_LEAST_ONCE`."""


@frozen(kw_only=True)
class Counts:
    """How many items are in which state; together they are all items of the journal.

    Attributes:
        pending: taken from the input and not sent yet.
        sending: written down as about to be sent, without a result: in flight, or interrupted by a kill.
        accepted: the service took it and named it.
        rejected: the service answered no; nothing was sent.
        not_sent: the request never left.
        unknown: written, and no trustworthy answer came.
        invalid: breaks a rule, so nothing was asked of the service.
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
    """One opening of the journal for sending.

    Attributes:
        number: 1 for the first of the journal.
        started: when.
        ended: when; None while it runs, and for one that was killed.
        ending: how.
    """

    number: int
    started: datetime
    ended: datetime | None
    ending: Ending


@frozen(kw_only=True)
class Point:
    """What ended in a piece of a run.

    Attributes:
        start: when the piece begins.
        seconds: how long it is.
        accepted, rejected, not_sent, unknown, invalid: how many items ended so.
        throttled: attempts answered 429, whether or not they were tried again.
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
        """Items that ended with a request for them; an invalid one asks for none."""
        return self.accepted + self.rejected + self.not_sent + self.unknown


@frozen(kw_only=True)
class Span:
    """A time in which the run was at work, without a pause worth showing.

    Attributes:
        start: when it begins.
        seconds: how long it is.
        points: it, in pieces.
    """

    start: datetime
    seconds: int
    points: tuple[Point, ...]


@frozen(kw_only=True)
class Timeline:
    """A run over time; between two spans nothing ran.

    Attributes:
        point_seconds: how much time a point stands for; the last one of a span may be shorter.
        spans: in the order of time; at most 240 points in all.
    """

    point_seconds: int
    spans: tuple[Span, ...]


@frozen(kw_only=True)
class Totals:
    """The run in a few numbers.

    Attributes:
        items: how many the journal knows.
        ended: results written down; an item that was tried again on resume ended more than once.
        throttled: attempts answered 429.
        working_seconds: time spent at work, pauses between sessions left out.
        codes_per_second: results of requests a second of it.
        busiest_per_second: the same in the best point of the timeline.
    """

    items: int
    ended: int
    throttled: int
    working_seconds: int
    codes_per_second: float
    busiest_per_second: float


@frozen(kw_only=True)
class Bucket:
    """Answered items whose last attempt took between `low` and `high` seconds."""

    low: float
    high: float
    count: int


@frozen(kw_only=True)
class Percentile:
    """A share of the answered items was at least as fast as this.

    Attributes:
        percent: the share.
        value: the middle of the bucket it lies in, in seconds.
        low, high: the bucket's bounds: the true figure is between them.
    """

    percent: int
    value: float
    low: float
    high: float


@frozen(kw_only=True)
class Latency:
    """How long the last attempt of answered items took.

    Attributes:
        answered: how many were measured.
        resolution: the factor from a bucket's lower to its upper bound; figures are no finer.
        buckets: without the empty ones at both ends, fastest first.
        percentiles: 50, 90 and 99; none where nothing was answered.
    """

    answered: int
    resolution: float
    buckets: tuple[Bucket, ...]
    percentiles: tuple[Percentile, ...]


@frozen(kw_only=True)
class FailureReport:
    """Items that are not accepted for one cause.

    Attributes:
        status: `rejected`, `not_sent`, `unknown` or `invalid`.
        cause: the error's class, or `InterruptedRun`; None where the journal has none.
        http_status: what was answered, where something was.
        count: how many items.
        meaning: what happened, in one line.
        resume: whether the next run with the journal tries them again.
    """

    status: str
    cause: str | None
    http_status: int | None
    count: int
    meaning: str
    resume: Resume
