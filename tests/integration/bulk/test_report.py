"""The report on a journal: its figures against known content, and the errors for unusable files."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import shutil
import signal
import sqlite3
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import (
    BulkSender,
    CodeTemplate,
    JournalError,
    JournalReport,
    RetryPolicy,
    SQLiteJournal,
    errors,
)
from bandwidth_mfa_async._sqlite import FileLock
from bandwidth_mfa_async.bulk.report import _timeline
from bandwidth_mfa_async.bulk.report._causes import describe_cause
from bandwidth_mfa_async.bulk.report._timeline import MAX_POINTS, Interval
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.fault_server import FaultServer, answer
from tests.support.journal_file import BEGAN, COUNTED, make_journal, make_launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.clients import MakeClient

ACCEPTED = ("accepted", None, None, 0)
SENTINELS = ("9998887766", "8887776655", "s3ntinel")


def points(report: JournalReport) -> list[Any]:
    return [point for span in report.timeline.spans for point in span.points]


def execute(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
    return path


# ------------------------------------------------------------------------------------------------ content


def test_items_are_counted_by_status_and_cause(tmp_path: Path) -> None:
    """Each item is counted once; positions are in the order of the input."""
    items = [
        ACCEPTED,
        ("unknown", "ReadTimeoutError", None, 0),
        ("rejected", "BadRequestError", 400, 0),
        ("rejected", "RateLimitError", 429, 1),
        ("unknown", "InterruptedRun", None, 0),
        ("not_sent", "ConnectTimeoutError", None, 1),
        ("invalid", "InvalidRequestError", None, 0),
        ("sending", None, None, 0),
        ("pending", None, None, 0),
        ("rejected", "BadRequestError", 400, 0),
        ACCEPTED,
    ]
    report = JournalReport.read(make_journal(tmp_path / "run.db", items=items, channel="voice"))
    assert report.to_dict()["counts"] == {
        "pending": 1,
        "sending": 1,
        "accepted": 2,
        "rejected": 3,
        "not_sent": 1,
        "unknown": 2,
        "invalid": 1,
    }
    assert (report.totals.items, report.channel, report.run) == (11, "voice", "launch")
    assert (report.unknown_positions, report.sending_positions) == ((1, 4), (7,))
    found = {(failure.cause, failure.http_status): (failure.count, failure.resume) for failure in report.failures}
    assert found == {
        ("BadRequestError", 400): (2, "no"),
        ("RateLimitError", 429): (1, "yes"),
        ("ConnectTimeoutError", None): (1, "yes"),
        ("ReadTimeoutError", None): (1, "at_least_once"),
        ("InterruptedRun", None): (1, "at_least_once"),
        ("InvalidRequestError", None): (1, "no"),
    }
    assert report.failures[0].cause == "BadRequestError"


def test_positions_are_limited_and_found_in_every_slice(tmp_path: Path) -> None:
    """The report lists the first 1,000 unknown items, and finds two that are far apart."""
    unknown = ("unknown", "ReadTimeoutError", None, 0)
    many = JournalReport.read(make_journal(tmp_path / "many.db", items=[unknown] * 12_345))
    assert (many.counts.unknown, many.unknown_positions) == (12_345, tuple(range(1_000)))
    items = [ACCEPTED] * 25_000
    items[3], items[24_999] = unknown, unknown
    assert JournalReport.read(make_journal(tmp_path / "far.db", items=items)).unknown_positions == (3, 24_999)


def test_every_error_class_has_a_meaning() -> None:
    """A new error class needs a line in `_causes`."""
    for name in dir(errors):
        cls = getattr(errors, name)
        caught = isinstance(cls, type) and issubclass(cls, (errors.RequestError, errors.InvalidRequestError))
        if caught and name not in {"RequestError", "VerificationLockedError"}:
            assert "this version does not know" not in describe_cause(name, 500), name
    assert describe_cause("InterruptedRun", None) != describe_cause("SomethingElse", None) != describe_cause(None, None)
    assert describe_cause("ServerError", 502) != describe_cause("ServerError", 500)
    assert describe_cause("RateLimitError", None) != describe_cause("RateLimitError", 429)


def test_a_session_without_an_end_was_killed_unless_the_lock_is_held(tmp_path: Path) -> None:
    """Only the latest session can still run."""
    sessions = [(BEGAN + 0.0, None, None), (BEGAN + 50.0, BEGAN + 60.0, "stopped"), (BEGAN + 70.0, None, None)]
    path = make_journal(tmp_path / "run.db", items=[ACCEPTED], sessions=sessions)
    report = JournalReport.read(path)
    assert [session.ending for session in report.sessions] == ["killed", "stopped", "killed"]
    assert (report.sessions_by_ending, report.running) == ({"killed": 2, "stopped": 1}, False)
    lock = FileLock(str(path))
    lock.acquire()
    report = JournalReport.read(path)
    lock.release()
    assert [session.ending for session in report.sessions] == ["killed", "stopped", "running"]
    assert (report.sessions_by_ending, report.running) == ({"killed": 1, "stopped": 1, "running": 1}, True)
    assert JournalReport.read(path).running is False


def test_sessions_that_start_in_the_same_second_are_read(tmp_path: Path) -> None:
    """A run that is killed and started again at once: its first session has no end."""
    sessions = [(BEGAN + 0.1, None, None), (BEGAN + 0.4, None, None), (BEGAN + 0.6, BEGAN + 0.9, "finished")]
    seconds = {BEGAN: {"accepted": 3}}
    path = make_journal(tmp_path / "run.db", items=[ACCEPTED] * 3, seconds=seconds, sessions=sessions)
    report = JournalReport.read(path)
    assert [session.ending for session in report.sessions] == ["killed", "killed", "finished"]
    assert (report.totals.ended, report.totals.working_seconds) == (3, 1)


@pytest.mark.parametrize(("flag", "expected"), [(False, (0, 0)), (True, (2, 0)), (None, (0, 2))])
def test_possible_duplicates_are_counted(tmp_path: Path, flag: bool | None, expected: tuple[int, int]) -> None:
    """Only of accepted items, and apart from those of which an older version did not record it."""
    items = [ACCEPTED, ("unknown", "ReadTimeoutError", None, 0), ("pending", None, None, 0), ACCEPTED]
    report = JournalReport.read(make_journal(tmp_path / "run.db", items=items, possible_duplicate=flag))
    assert (report.possible_duplicates, report.possible_duplicates_unrecorded) == expected
    assert (report.counts.accepted, report.counts.unknown) == (2, 1)


@pytest.mark.parametrize(
    ("ending", "facts", "expected"),
    [
        ("stopped", {"input_items": "10"}, (10, 6)),
        ("finished", {"input_items": "10"}, (10, 0)),
        ("stopped", {}, (None, 0)),
        ("stopped", {"input_items": "3"}, (3, 0)),
    ],
)
def test_items_of_the_input_that_were_not_taken_are_counted(
    tmp_path: Path, ending: str, facts: dict[str, str], expected: tuple[int | None, int]
) -> None:
    """The highest position shows how much of the input was taken: a finished run may end with duplicates."""
    sessions = [(BEGAN + 0.2, BEGAN + 60.0, ending)]
    path = make_journal(tmp_path / "run.db", items=[ACCEPTED] * 4, sessions=sessions, **facts)
    report = JournalReport.read(path)
    assert (report.totals.input_items, report.totals.not_taken, report.totals.items) == (*expected, 4)


def test_a_number_of_items_that_is_no_number_is_damage(tmp_path: Path) -> None:
    """A tampered file gives an error, not a traceback."""
    path = make_journal(tmp_path / "run.db", input_items="many")
    with pytest.raises(JournalError, match="is damaged"):
        JournalReport.read(path)


async def test_the_number_of_items_in_the_input_is_stored(tmp_path: Path) -> None:
    """A later run replaces it."""
    path = tmp_path / "run.db"
    async with SQLiteJournal(path) as journal:
        await journal.record_input(7)
        await journal.record_input(9)
        await journal.aclose("stopped")
    report = await asyncio.to_thread(JournalReport.read, path)
    assert (report.totals.input_items, report.totals.not_taken) == (9, 9)


def test_sessions_are_limited(tmp_path: Path) -> None:
    """A journal that was resumed every minute for a day still gives a short report."""
    sessions = [(BEGAN + 60.0 * place, BEGAN + 60.0 * place + 1, "finished") for place in range(1_500)]
    seconds = {BEGAN + 60 * place: {"accepted": 1} for place in range(1_500)}
    report = JournalReport.read(make_journal(tmp_path / "run.db", sessions=sessions, seconds=seconds))
    assert (len(report.sessions), report.sessions[-1].number) == (1_000, 1_500)
    assert report.sessions_by_ending == {"finished": 1_500}
    assert sum(point.accepted for point in points(report)) == 1_500
    assert len(points(report)) <= MAX_POINTS


def test_the_report_survives_json(tmp_path: Path) -> None:
    """Times are UTC, and `to_dict` has all fields."""
    path = make_launch(tmp_path / "run.db", items=500)
    report = JournalReport.read(path, clock=ManualClock(wall=BEGAN + 0.0))
    document = json.loads(json.dumps(report.to_dict()))
    assert document["read_at"] == "2026-11-23T05:21:49+00:00"
    assert document["totals"]["items"] == 500
    assert len(document["timeline"]["spans"]) == 2
    assert document["failures"][0]["meaning"]
    assert set(document) == {field for field in JournalReport.__annotations__ if field != "return"}


# ------------------------------------------------------------------------------------------------ timeline

rows = st.dictionaries(
    st.integers(0, 40_000),
    st.fixed_dictionaries({name: st.integers(0, 1_000_000) for name in COUNTED}),
    min_size=1,
    max_size=40,
)
starts = st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), min_size=0, max_size=30)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, starts, st.integers(0, 300))
def test_points_keep_every_sum(
    tmp_path: Path, seconds: dict[int, dict[str, int]], starts: list[tuple[int, bool]], lasted: int
) -> None:
    """For any sessions, killed ones too: no result is lost or counted twice, and at most 240 points do not overlap."""
    path = tmp_path / "run.db"
    path.unlink(missing_ok=True)
    sessions = [
        (BEGAN + start + 0.3, *((None, None) if is_killed else (BEGAN + start + lasted + 0.6, "stopped")))
        for start, is_killed in starts
    ]
    at = {BEGAN + second: row for second, row in seconds.items()}
    report = JournalReport.read(make_journal(path, seconds=at, sessions=sessions))
    found = points(report)
    for name in COUNTED:
        assert sum(getattr(point, name) for point in found) == sum(row[name] for row in seconds.values())
    assert 1 <= len(found) <= MAX_POINTS
    edges = [(point.start.timestamp(), point.start.timestamp() + point.seconds) for point in found]
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(edges))
    assert all(1 <= point.seconds <= report.timeline.point_seconds for point in found)
    for span in report.timeline.spans:
        assert sum(point.seconds for point in span.points) == span.seconds


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), min_size=1, max_size=400))
def test_merging_keeps_the_longest_pauses(lengths: list[tuple[int, int]]) -> None:
    """Intervals are merged, never cut or moved."""
    at, intervals = 0, []
    for length, pause in lengths:
        intervals.append(Interval(at, at + length))
        at += length + pause
    merged = _timeline.merge_intervals(intervals)
    assert len(merged) <= _timeline.MAX_INTERVALS
    assert (merged[0].start, merged[-1].stop) == (intervals[0].start, intervals[-1].stop)
    assert {interval.start for interval in merged} <= {interval.start for interval in intervals}
    kept = [later.start - earlier.stop for earlier, later in itertools.pairwise(merged)]
    edges = {(interval.stop, interval.start) for interval in merged}
    dropped = [
        later.start - earlier.stop
        for earlier, later in itertools.pairwise(intervals)
        if not any(later.start == start for _, start in edges)
    ]
    assert not kept or not dropped or min(kept) > max(dropped)


def test_a_long_pause_between_sessions_is_not_shown(tmp_path: Path) -> None:
    """The points of a run of a month are three hours long."""
    day = 86_400
    seconds = {
        BEGAN + at: {"accepted": 5} for start, stop in ((0, 14), (17, 30)) for at in range(start * day, stop * day, 300)
    }
    sessions = [(BEGAN + 0.5, BEGAN + 14.0 * day, "stopped"), (BEGAN + 17.0 * day, BEGAN + 30.0 * day, "finished")]
    report = JournalReport.read(make_journal(tmp_path / "run.db", seconds=seconds, sessions=sessions))
    assert [span.seconds for span in report.timeline.spans] == [14 * day, 13 * day]
    assert report.timeline.point_seconds == 10_800
    assert report.totals.working_seconds == 27 * day
    assert report.totals.codes_per_second == pytest.approx(5 / 300)


def test_a_slow_run_has_long_points(tmp_path: Path) -> None:
    """At one code per minute a point has five codes."""
    seconds = {BEGAN + 60 * minute: {"accepted": 1} for minute in range(180)}
    report = JournalReport.read(make_journal(tmp_path / "run.db", seconds=seconds, sessions=[(BEGAN, None, None)]))
    assert report.timeline.point_seconds == 300
    assert {point.accepted for point in points(report)[:-1]} == {5}


def test_invalid_items_do_not_count_as_codes(tmp_path: Path) -> None:
    """They are checked a hundred times as fast as others are sent, and would dominate a chart."""
    seconds = {BEGAN: {"invalid": 90_000, "accepted": 5}, BEGAN + 1: {"accepted": 3, "unknown": 2}}
    report = JournalReport.read(make_journal(tmp_path / "run.db", seconds=seconds, sessions=[(BEGAN, None, None)]))
    assert (report.totals.codes_per_second, report.totals.ended) == (5.0, 90_010)


# ------------------------------------------------------------------------------------------------ latency


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200))
def test_percentiles_are_exact_to_one_bucket(tmp_path: Path, latencies: list[float]) -> None:
    """The exact value from a sorted list lies in the reported bucket."""
    path = tmp_path / "run.db"
    path.unlink(missing_ok=True)
    report = JournalReport.read(make_journal(path, latency=latencies))
    ordered = sorted(latencies)
    assert [mark.percent for mark in report.latency.percentiles] == [50, 90, 99]
    for mark in report.latency.percentiles:
        true = ordered[max(1, math.ceil(mark.percent / 100 * len(ordered))) - 1]
        assert mark.low * (1 - 1e-9) <= true <= mark.high * (1 + 1e-9)
        assert mark.low < mark.value < mark.high
        assert mark.high / mark.low == pytest.approx(report.latency.resolution)
    assert sum(bucket.count for bucket in report.latency.buckets) == report.latency.answered == len(latencies)
    assert all(a.high == pytest.approx(b.low) for a, b in itertools.pairwise(report.latency.buckets))


# ------------------------------------------------------------------------------------------------ bad files


def newer(path: Path) -> None:
    execute(make_journal(path), "PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    execute(path, "CREATE TABLE mine (x)")


def truncated(path: Path) -> None:
    make_launch(path, items=3_000)
    os.truncate(path, path.stat().st_size * 2 // 3)


def overwritten(path: Path) -> None:
    make_launch(path, items=3_000)
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * 60_000)


def tables_gone(path: Path) -> None:
    execute(make_journal(path, items=[ACCEPTED]), "DROP TABLE second")


def of_values(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        execute(make_journal(path, items=[ACCEPTED] * 3, seconds={BEGAN: {"accepted": 3}}), *statements)

    return make


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "there is no such file"),
    "a folder": (lambda path: path.mkdir(), "this is not a file"),
    "empty": (lambda path: path.touch(), "this journal is empty"),
    "text": (lambda path: path.write_text("to\n+19195551234\n" * 400), "is not a journal"),
    "newer": (newer, "upgrade"),
    "another program's": (foreign, "another program"),
    "truncated": (truncated, "is damaged"),
    "overwritten": (overwritten, "is damaged"),
    "a table is gone": (tables_gone, "is damaged"),
    "no time of making": (of_values("DELETE FROM meta"), "is damaged"),
    "a time out of range": (of_values("UPDATE meta SET value = '1e300' WHERE name = 'created_at'"), "is damaged"),
    "an unknown status": (of_values("UPDATE item SET status = 9 WHERE id = 2"), "is damaged"),
    "text for a status": (of_values("UPDATE item SET status = 'x' WHERE id = 2"), "is damaged"),
    "a blob for a cause": (of_values("UPDATE item SET status = 3, cause = zeroblob(3)"), "is damaged"),
    "ids far apart": (of_values("UPDATE item SET id = 9000000000000000000 WHERE id = 2"), "is damaged"),
    "a second far away": (of_values("UPDATE second SET at = 9000000000000000000"), "is damaged"),
    "text for a second": (of_values("UPDATE second SET accepted = 'x'"), ""),
    "text for a session": (of_values("UPDATE session SET started_at = 'x'"), "is damaged"),
    "an endless session": (of_values("UPDATE session SET started_at = 9e999"), "is damaged"),
    "an unknown ending": (of_values("UPDATE session SET ending = 'tired'"), "is damaged"),
}


@pytest.mark.parametrize("name", BAD)
async def test_the_error_shows_a_files_name_without_control_characters(tmp_path: Path, name: str) -> None:
    """A file's name cannot write to the terminal; neither a report nor a run shows it as it is."""
    path = tmp_path / "run\x1b[31m\u202e\u2028\u200b.db"
    shown = []

    def read() -> None:
        BAD[name][0](path)
        try:
            JournalReport.read(path)
        except JournalError as error:
            shown.append(str(error))

    await asyncio.to_thread(read)
    if name not in {"missing", "empty"}:
        try:
            async with SQLiteJournal(path):
                pass
        except JournalError as error:
            shown.append(str(error))
    assert shown or name == "text for a second"
    assert all(text.isprintable() and "run [31m .db" in text for text in shown), shown


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_raises_a_journal_error_with_the_remedy(tmp_path: Path, name: str) -> None:
    """No other exception is raised, and the file is unchanged."""
    make, said = BAD[name]
    path = tmp_path / "run.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    if not said:
        JournalReport.read(path)  # SQLite converts text that is not a number to 0
        return
    with pytest.raises(JournalError, match=said) as caught:
        JournalReport.read(path)
    assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.binary(min_size=1, max_size=400))
def test_random_damage_gives_a_report_or_a_journal_error(tmp_path: Path, place: int, garbage: bytes) -> None:
    """No other exception is raised."""
    sound = tmp_path / "sound.db"
    if not sound.exists():
        make_launch(sound, items=400)
    path = tmp_path / "run.db"
    shutil.copy(sound, path)
    with path.open("r+b") as file:
        file.seek(place % path.stat().st_size)
        file.write(garbage)
    try:
        report = JournalReport.read(path)
    except JournalError:
        return
    json.dumps(report.to_dict())


def test_names_are_one_printable_line(tmp_path: Path) -> None:
    """A tampered file cannot move the cursor, change the text direction or fill the screen."""
    path = make_journal(tmp_path / "a.db", run="\x1b[31mred\u202e\u2066\n" + "x" * 5_000, channel="\x00")
    execute(path, "UPDATE meta SET value = CAST(X'ff41' AS TEXT) WHERE name = 'made_by'")
    report = JournalReport.read(path)
    assert report.run.startswith("\ufffd[31mred\ufffdxxx")
    assert len(report.run) == 200
    assert (report.channel, report.made_by) == ("\ufffd", "\ufffdA")


@pytest.mark.parametrize("name", ["a ?#%&.db", "número.db", "-.db"])
def test_any_file_name_can_be_read(tmp_path: Path, name: str) -> None:
    """Some characters are special in SQLite URIs."""
    assert JournalReport.read(make_journal(tmp_path / name, items=[ACCEPTED])).totals.items == 1


def test_reading_creates_no_files(tmp_path: Path) -> None:
    """A journal in a read-only place can be read."""
    path = make_journal(tmp_path / "run.db", items=[ACCEPTED])
    path.chmod(0o400)
    before = path.stat().st_mtime_ns
    JournalReport.read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.db"]
    assert path.stat().st_mtime_ns == before


# ------------------------------------------------------------------------------------------------ real runs


async def test_an_active_run_can_be_read(
    server: FaultServer, make_client: MakeClient, template: Any, tmp_path: Path
) -> None:
    """The reader sees the last commit and does not disturb the run."""
    path = tmp_path / "run.db"
    numbers = [f"+1919555{index:04}" for index in range(60)]
    async with BulkSender(make_client(), journal=path, max_in_flight=4, channel="messaging") as bulk:
        stream = bulk.send(numbers, template=template)
        for _ in range(20):
            await anext(stream)
        report = await asyncio.to_thread(JournalReport.read, path)
        assert report.running
        assert report.sessions[-1].ending == "running"
        assert 10 <= report.totals.items <= 60
        with pytest.raises(JournalError, match="another run"):
            # The reader did not release the lock of this process.
            await SQLiteJournal(path).open()
        assert len([outcome async for outcome in stream]) == 40
    report = await asyncio.to_thread(JournalReport.read, path)
    assert (report.counts.accepted, report.totals.items, report.totals.ended) == (60, 60, 60)
    assert (report.running, report.sessions_by_ending) == (False, {"finished": 1})
    assert report.latency.answered == 60
    assert report.channel == "messaging"
    assert len(server.seen) == 60


async def test_the_report_matches_the_summary_of_the_run(
    server: FaultServer, make_client: MakeClient, template: Any, tmp_path: Path
) -> None:
    """The report contains no personal data."""
    server.play(answer(400, {"error": "to is bad: +19998887766"}), answer(502), answer(429), answer(403))
    secret = CodeTemplate("+18887776655", "s3ntinel", scope="s3ntinel", message="s3ntinel {CODE}")
    numbers = ["+19998887766", *(f"+1999888{index:04}" for index in range(9)), "not a number 9998887766"]
    path = tmp_path / "run.db"
    journal = SQLiteJournal(path, run="s3ntinel")
    client = make_client(retry=RetryPolicy(max_attempts=1))
    async with BulkSender(client, journal=journal, max_in_flight=1) as bulk:
        async for _ in bulk.send(numbers, template=secret):
            pass
    report = await asyncio.to_thread(JournalReport.read, path)
    for name in ("accepted", "rejected", "not_sent", "unknown", "invalid"):
        assert getattr(report.counts, name) == getattr(bulk.summary, name), name
    assert report.totals.throttled == bulk.summary.throttled
    assert {failure.cause for failure in report.failures} >= {"BadRequestError", "InvalidRequestError"}
    assert {failure.resume for failure in report.failures} >= {"no", "yes"}
    for sentinel in SENTINELS:
        assert sentinel not in repr(report) + json.dumps(report.to_dict())


KILLED = """
import asyncio, sys
from bandwidth_mfa_async import BulkSender, CodeTemplate, MFAClient
from bandwidth_mfa_async.simulator import Fault, Simulator

async def main():
    async with Simulator() as sim, MFAClient(**sim.client_kwargs()) as mfa:
        numbers = [f"+1919555{n:04}" for n in range(40)]
        # After ten responses the simulator stops answering.
        async with BulkSender(mfa, journal=sys.argv[1], max_in_flight=5) as bulk:
            done = 0
            async for outcome in bulk.send(numbers, template=CodeTemplate("+19195554321", "app")):
                done += 1
                if done == 10:
                    sim.faults.script(*[Fault(delay=float("inf"))] * 40, operation="messaging")
                    print("stuck", flush=True)

asyncio.run(main())
"""


def test_a_killed_run_shows_the_items_in_flight(tmp_path: Path) -> None:
    """They are read from the write-ahead log that the killed run left."""
    path = tmp_path / "run.db"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    with processes.running(command, stdout=processes.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        live = JournalReport.read(path)
        while live.counts.sending < 5 or live.counts.accepted < 10:
            live = JournalReport.read(path)
        assert live.running
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    report = JournalReport.read(path)
    assert (report.running, report.sessions[-1].ending, report.sessions[-1].ended) == (False, "killed", None)
    assert report.counts.sending == len(report.sending_positions) == 5
    assert report.counts.accepted >= 10
    assert not report.counts.unknown
