"""`JournalReport`: the outcomes, rates and latencies of a bulk run, computed from its journal."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ..._clock import SystemClock
from ..._concise import ConciseType
from ..._item_state import JournalState
from ..._redaction import printable
from ..journal._file import INPUT_ITEMS
from . import _timeline
from ._causes import describe_cause
from ._parts import Bucket, Counts, FailureReport, Latency, Percentile, Point, SessionReport, Span, Timeline, Totals
from ._reader import read_journal
from ._timeline import Interval

if TYPE_CHECKING:
    import os

    from ..._clock import Clock
    from ._parts import Ending, Resume
    from ._reader import FailureKey, Items, JournalReader

    SessionRow = tuple[float, float | None, str | None]

STATUSES: Final = tuple(status.name.lower() for status in JournalState)
MAX_POSITIONS: Final = 1_000
MAX_SESSIONS: Final = 1_000
PERCENTS: Final = (50, 90, 99)

_ENDINGS: Final[dict[str, Ending]] = {"finished": "finished", "stopped": "stopped", "failed": "failed"}

# Characters that move a cursor, break a line or change the text direction; a tampered file may contain them.
_MAX_NAME: Final = 200


@frozen(kw_only=True)
class JournalReport(metaclass=ConciseType):
    """The report on a bulk run's journal; it contains no number, no text and no personal id.

    Attributes:
        journal: name of the file.
        read_at: when the journal was read; all times are UTC.
        run, channel, made_by, created: facts from the journal; `made_by` is the library's version. Empty if the journal
            does not have them.
        running: whether a run uses the journal now; None if that cannot be determined.
        counts: items by state.
        possible_duplicates: accepted items of which an earlier attempt may have been delivered too.
        possible_duplicates_unrecorded: accepted items of an older version, which did not record that.
        totals: totals of the run.
        sessions: the latest 1,000 sessions, oldest first.
        sessions_by_ending: number of all sessions, by ending.
        timeline: the run over time.
        latency: latency of the answers.
        failures: items that were not accepted, by cause, the most frequent cause first.
        unknown_positions: positions in the input (from 0) of the first 1,000 unknown items.
        sending_positions: the same for items that are in flight or interrupted.
    """

    journal: str
    read_at: datetime
    run: str
    channel: str
    made_by: str
    created: datetime
    running: bool | None
    counts: Counts
    possible_duplicates: int
    possible_duplicates_unrecorded: int
    totals: Totals
    sessions: tuple[SessionReport, ...]
    sessions_by_ending: dict[str, int]
    timeline: Timeline
    latency: Latency
    failures: tuple[FailureReport, ...]
    unknown_positions: tuple[int, ...]
    sending_positions: tuple[int, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, clock: Clock | None = None) -> JournalReport:
        """Read a journal, also while its run is active; memory use does not grow with its length.

        Args:
            path: the journal's file; it is only read.
            clock: source of `read_at`; the system clock by default.

        Raises:
            JournalError: the file is missing, not a journal, damaged, or from a newer version; the message says what to
                do.
        """
        now = (clock or SystemClock()).time()
        return read_journal(Path(path).resolve(), lambda journal: _ReportBuilder(journal, now).report())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON; times are ISO 8601 text."""
        from cattrs.preconf.json import make_converter

        document: dict[str, Any] = make_converter().unstructure(self)
        return document


class _ReportBuilder:
    """Build a report from the queries of a `JournalReader`."""

    def __init__(self, journal: JournalReader, now: float) -> None:
        self._journal = journal
        self._now = now
        self._running: bool | None = False

    def report(self) -> JournalReport:
        journal = self._journal
        number, endings, rows = journal.sessions(MAX_SESSIONS)
        # Check the lock right after reading the sessions, and only if the latest one has no end: the check could
        # collide with a run that starts at the same moment.
        if rows and rows[-1][2] is None:
            self._running = journal.is_running()
        meta = journal.meta()
        items = journal.items()
        counts = self._counts(items)
        sessions = self._sessions(rows, number)
        intervals = self._intervals(rows)
        timeline = self._timeline(_timeline.merge_intervals(intervals))
        return JournalReport(
            journal=_printable(journal.path.name),
            read_at=self._datetime(self._now),
            run=_printable(meta.get("run", "")),
            channel=_printable(meta.get("channel", "")),
            made_by=_printable(meta.get("made_by", "")),
            created=self._datetime(self._parse_time(meta.get("created_at", ""))),
            running=self._running,
            counts=counts,
            possible_duplicates=items.possible_duplicates,
            possible_duplicates_unrecorded=items.unrecorded,
            totals=self._totals(meta, items, sessions, timeline, sum(interval.seconds for interval in intervals)),
            sessions=sessions,
            sessions_by_ending=self._count_endings(endings, sessions),
            timeline=timeline,
            latency=_latency(journal.latency()),
            failures=_failures(items.failures),
            unknown_positions=tuple(
                journal.positions(JournalState.UNKNOWN, items.slices[JournalState.UNKNOWN], MAX_POSITIONS)
            ),
            sending_positions=tuple(
                journal.positions(JournalState.SENDING, items.slices[JournalState.SENDING], MAX_POSITIONS)
            ),
        )

    def _totals(
        self, meta: dict[str, str], items: Items, sessions: tuple[SessionReport, ...], timeline: Timeline, working: int
    ) -> Totals:
        points = [point for span in timeline.spans for point in span.points]
        codes = sum(point.codes for point in points)
        # Ignore shorter last points: a single busy second would look like a peak.
        whole = [point for point in points if point.seconds == timeline.point_seconds] or points
        input_items = None
        if INPUT_ITEMS in meta:
            if not meta[INPUT_ITEMS].isdecimal():
                raise self._journal.damaged("no valid number of items in the input")
            input_items = int(meta[INPUT_ITEMS])
        # A finished run took everything; its last items may be duplicates, which have no row.
        has_finished = bool(sessions) and sessions[-1].ending == "finished"
        not_taken = 0 if has_finished or input_items is None else max(0, input_items - items.taken)
        return Totals(
            items=items.total,
            input_items=input_items,
            not_taken=not_taken,
            ended=codes + sum(point.invalid for point in points),
            throttled=sum(point.throttled for point in points),
            working_seconds=working,
            codes_per_second=codes / working if working else 0.0,
            busiest_per_second=max((point.codes / point.seconds for point in whole), default=0.0),
        )

    def _parse_time(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise self._journal.damaged("no valid creation time") from None

    def _datetime(self, seconds: float) -> datetime:
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            raise self._journal.damaged("an invalid time") from None

    def _counts(self, items: Items) -> Counts:
        by_status = dict.fromkeys(STATUSES, 0)
        for (status, *_), count in items.failures.items():
            if not 0 <= status < len(STATUSES):
                raise self._journal.damaged("an item with an invalid status")
            by_status[STATUSES[status]] += count
        by_status["accepted"] = items.total - sum(by_status.values())
        return Counts(**by_status)

    def _ending(self, ending: str | None, *, latest: bool) -> Ending:
        if ending is None:
            if not latest:
                return "killed"
            return "unfinished" if self._running is None else "running" if self._running else "killed"
        known = _ENDINGS.get(ending)
        if known is None:
            raise self._journal.damaged("a session with an invalid ending")
        return known

    def _sessions(self, rows: list[SessionRow], number: int) -> tuple[SessionReport, ...]:
        return tuple(
            SessionReport(
                number=place,
                started=self._datetime(started),
                ended=None if ended is None else self._datetime(ended),
                ending=self._ending(ending, latest=place == number),
            )
            for place, (started, ended, ending) in enumerate(rows, start=number - len(rows) + 1)
        )

    def _count_endings(self, counted: dict[str | None, int], sessions: tuple[SessionReport, ...]) -> dict[str, int]:
        by_ending = {self._ending(ending, latest=False): count for ending, count in counted.items()}
        latest = sessions[-1].ending if sessions else "finished"
        if latest in {"running", "unfinished"}:
            by_ending["killed"] -= 1
            by_ending[latest] = 1
        return {ending: count for ending, count in by_ending.items() if count}

    def _intervals(self, sessions: list[SessionRow]) -> list[Interval]:
        """Return the active periods: one for each session that has results."""
        # Only by the start: sessions may start in the same second, and a killed one has no end.
        ordered = sorted(((math.floor(started), ended) for started, ended, _ in sessions), key=itemgetter(0))
        starts: list[int | None] = [start for start, _ in ordered]
        # Results before the first session, or without a session, count for the first one.
        if starts:
            starts[0] = None
        intervals: list[Interval] = []
        for place, (low, high) in enumerate(itertools.pairwise([*(starts or [None]), None])):
            active = self._journal.active_range(low, high)
            if active is None:
                continue
            start, stop = active[0], active[1] + 1
            if ordered:
                began, ended = ordered[place]
                start = min(start, began)
                stop = stop if ended is None else max(stop, math.ceil(ended))
            intervals.append(Interval(start, stop if high is None else min(stop, high)))
        return intervals

    def _timeline(self, intervals: list[Interval]) -> Timeline:
        codes = sum(sum(self._journal.totals(interval)[:4]) for interval in intervals)
        point_seconds = _timeline.choose_point_seconds(intervals, codes)
        return Timeline(
            point_seconds=point_seconds,
            spans=tuple(
                Span(
                    start=self._datetime(interval.start),
                    seconds=interval.seconds,
                    points=tuple(self._point(interval) for interval in _timeline.split(interval, point_seconds)),
                )
                for interval in intervals
            ),
        )

    def _point(self, interval: Interval) -> Point:
        accepted, rejected, not_sent, unknown, invalid, throttled = self._journal.totals(interval)
        return Point(
            start=self._datetime(interval.start),
            seconds=interval.seconds,
            accepted=accepted,
            rejected=rejected,
            not_sent=not_sent,
            unknown=unknown,
            invalid=invalid,
            throttled=throttled,
        )


def _printable(text: str) -> str:
    return printable(text, "\N{REPLACEMENT CHARACTER}")[:_MAX_NAME]


def _latency(counts: list[tuple[int, int]]) -> Latency:
    buckets = dict(counts)
    filled = range(counts[0][0], counts[-1][0] + 1) if counts else range(0)
    percentiles: list[Percentile] = []
    for percent in PERCENTS if counts else ():
        low, high = _timeline.bucket_bounds(_timeline.percentile_bucket(counts, percent))
        percentiles.append(Percentile(percent=percent, value=math.sqrt(low * high), low=low, high=high))
    return Latency(
        answered=sum(buckets.values()),
        resolution=10 ** (1 / _timeline.BUCKETS_PER_DECADE),
        buckets=tuple(
            Bucket(low=low, high=high, count=buckets.get(bucket, 0))
            for bucket in filled
            for low, high in [_timeline.bucket_bounds(bucket)]
        ),
        percentiles=tuple(percentiles),
    )


def _failures(counted: dict[FailureKey, int]) -> tuple[FailureReport, ...]:
    reports = [
        FailureReport(
            status=STATUSES[status],
            cause=None if cause is None else _printable(cause),
            http_status=http_status,
            count=count,
            meaning=describe_cause(cause, http_status),
            resume=_resume(STATUSES[status], is_retryable_next_run=bool(again)),
        )
        for (status, cause, http_status, again), count in counted.items()
        if STATUSES[status] in {"rejected", "not_sent", "unknown", "invalid"}
    ]
    return tuple(sorted(reports, key=lambda report: (-report.count, report.status, report.cause or "")))


def _resume(status: str, *, is_retryable_next_run: bool) -> Resume:
    if status == "unknown":
        return "at_least_once"
    return "yes" if is_retryable_next_run and status != "invalid" else "no"
