"""The files of a journal: one lock for every name, damage and missing results, and the previous format."""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import shutil
import sqlite3
import struct
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BulkSender,
    CodeTemplate,
    Delivery,
    ItemOutcome,
    JournalError,
    JournalReport,
    MFAClient,
    Resend,
    RetryPolicy,
    SQLiteJournal,
)
from bandwidth_mfa_async._item_state import JournalState
from bandwidth_mfa_async._keys import Keys
from bandwidth_mfa_async.bulk.journal._checks import CommitMark
from bandwidth_mfa_async.bulk.journal._file import Batch, JournalFile
from tests.support.fault_server import FaultServer, answer
from tests.support.journal_file import held_by_another_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import MakeClient

NUMBERS = [f"+1919555{index:04}" for index in range(12)]
SAMPLES = pathlib.Path(__file__).parents[2] / "samples"
NOW = 1_700_000_000.0
ENDINGS = ("", "-wal", "-mark")


async def send(client: MFAClient, journal: Any, template: CodeTemplate) -> list[ItemOutcome]:
    async with BulkSender(client, journal=journal, max_in_flight=5, ordered=True) as bulk:
        return [outcome async for outcome in bulk.send(NUMBERS, template=template)]


def names(folder: str | os.PathLike[str], start: str = "") -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(start))  # noqa: PTH208


def execute(path: pathlib.Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def begin(path: pathlib.Path, template: CodeTemplate, accepted: int = 6) -> JournalFile:
    """Return the open file of a run: the first items are accepted, the others are in flight; one commit for each."""
    keys = Keys("messaging", "")
    file = JournalFile(str(path))
    file.open(NOW)
    batch = Batch()
    for position, number in enumerate(NUMBERS):
        batch.keys += keys.digest(template.to(number))
        batch.positions.append(position)
        batch.payloads += bytes(8)
    ids = list(file.apply(batch))
    file.apply(Batch(intents=dict.fromkeys(ids)))
    for row_id in ids[:accepted]:
        batch = Batch()
        batch.accept(row_id, f"m-{row_id}", 1, NOW)
        file.apply(batch)
    return file


def killed(path: pathlib.Path, template: CodeTemplate) -> None:
    """Create the files that a killed run leaves."""
    folder = path.parent / "alive"
    folder.mkdir()
    file = begin(folder / path.name, template)
    for ending in ENDINGS:
        if (folder / f"{path.name}{ending}").exists():
            shutil.copy(folder / f"{path.name}{ending}", f"{path}{ending}")
    file.close("finished", NOW)


def frames(path: pathlib.Path) -> tuple[int, list[int]]:
    """Return the size of a frame of the log, and the numbers of the frames that end a transaction."""
    log = pathlib.Path(f"{path}-wal").read_bytes()
    size = 24 + struct.unpack(">I", log[8:12])[0]
    return size, [
        number
        for number in range((len(log) - 32) // size)
        if struct.unpack(">I", log[32 + number * size + 4 :][:4])[0] and log[32 + number * size + 8 :][:8] == log[16:24]
    ]


def flip(path: pathlib.Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# The lock.


async def test_a_hard_link_is_refused(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """SQLite keeps the log beside one name only; a run that uses the other name would send everything again."""
    path, link = tmp_path / "run.db", tmp_path / "folder" / "link.db"
    link.parent.mkdir()
    async with SQLiteJournal(path):
        os.link(path, link)
        with pytest.raises(JournalError, match=r"2 names \(hard links\)"):
            await send(make_client(), link, template)
    with pytest.raises(JournalError, match=r"2 names \(hard links\)"):
        await send(make_client(), path, template)
    link.unlink()
    assert len(await send(make_client(), path, template)) == len(server.seen) == 12


async def test_the_inode_is_locked(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A run in another process that reaches the file by another name is seen, whatever that name is."""
    path, moved = tmp_path / "run.db", tmp_path / "moved.db"
    async with held_by_another_process(path):
        path.rename(moved)
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), moved, template)
    assert server.seen == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/locks")
async def test_a_report_and_a_refused_run_keep_the_locks_of_the_run(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Closing any descriptor of the file would drop SQLite's locks in this process."""
    path = tmp_path / "run.db"

    def locks() -> list[str]:
        entries = (line.split() for line in pathlib.Path("/proc/locks").read_text().splitlines())
        return sorted(entry[1] for entry in entries if entry[5].endswith(f":{path.stat().st_ino}"))

    async with SQLiteJournal(path):
        before = locks()
        assert before == ["FLOCK", "POSIX"]
        assert (await asyncio.to_thread(JournalReport.read, path)).running
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), path, template)
        assert locks() == before
    assert locks() == []
    assert (await asyncio.to_thread(JournalReport.read, path)).running is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_keep_the_lock(tmp_path: pathlib.Path) -> None:
    """A worker process that outlives the run does not lock its journal."""
    file = JournalFile(str(tmp_path / "run.db"))
    file.open(NOW)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        file.close("finished", NOW)
        file.open(NOW)
        file.close("finished", NOW)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@pytest.mark.parametrize("kind", ["/dev/null", "fifo", "socket folder"])
async def test_only_a_regular_file_can_be_a_journal(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, kind: str
) -> None:
    """Nothing is left beside it, and a pipe without a reader does not hang."""
    path = tmp_path / "run.db"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "/dev/null":
        path.symlink_to(kind)
    else:
        path.mkdir()
    beside = names("/dev", "null")
    with pytest.raises(JournalError, match=r"not a regular file|is a folder"):
        await send(make_client(), path, template)
    assert names(tmp_path) == ["run.db"]
    assert names("/dev", "null") == beside


# Damage and missing results.


def log_is_missing(path: pathlib.Path) -> None:
    pathlib.Path(f"{path}-wal").unlink()


def only_the_file_is_copied(path: pathlib.Path) -> None:
    for ending in ("-wal", "-mark"):
        pathlib.Path(f"{path}{ending}").unlink(missing_ok=True)


def log_is_cut_after_a_commit(path: pathlib.Path) -> None:
    size, commits = frames(path)
    os.truncate(f"{path}-wal", 32 + size * (commits[-2] + 1))


def log_is_cut_to_nothing(path: pathlib.Path) -> None:
    os.truncate(f"{path}-wal", 0)


def log_header_is_damaged(path: pathlib.Path) -> None:
    flip(pathlib.Path(f"{path}-wal"), 8 * 17)


def last_frame_is_damaged(path: pathlib.Path) -> None:
    size, commits = frames(path)
    flip(pathlib.Path(f"{path}-wal"), 8 * (32 + size * commits[-1] + 100))


def frame_is_damaged(path: pathlib.Path) -> None:
    size, _ = frames(path)
    flip(pathlib.Path(f"{path}-wal"), 8 * (32 + size + 100))
    pathlib.Path(f"{path}-mark").unlink(missing_ok=True)


def file_is_gone(path: pathlib.Path) -> None:
    path.unlink()


def file_is_empty(path: pathlib.Path) -> None:
    os.truncate(path, 0)


def mark_is_damaged(path: pathlib.Path) -> None:
    flip(pathlib.Path(f"{path}-mark"), 60)


def mark_is_cut(path: pathlib.Path) -> None:
    os.truncate(f"{path}-mark", 9)


DAMAGE: list[tuple[Callable[[pathlib.Path], None], str]] = [
    (log_is_missing, "newest 8 transactions are missing.*not there"),
    (only_the_file_is_copied, "last run was killed.*not there.*would be sent again"),
    (log_is_cut_after_a_commit, "newest 1 transactions are missing"),
    (log_is_cut_to_nothing, "newest 8 transactions are missing"),
    (log_header_is_damaged, "header of its -wal"),
    (last_frame_is_damaged, "newest 1 transactions are missing"),
    (frame_is_damaged, "bad frames before good ones"),
    (file_is_gone, "missing or empty"),
    (file_is_empty, "missing or empty"),
    (mark_is_damaged, "run.db-mark: this file is damaged"),
    (mark_is_cut, "run.db-mark: this file is damaged"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_killed_run_whose_files_are_damaged_sends_nothing(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    damage: Callable[[pathlib.Path], None],
    says: str,
) -> None:
    """SQLite would use what it can read, in silence. All files stay as they are, so they can be restored."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(killed, path, template)
    damage(path)
    before = {ending: content(path, ending) for ending in ENDINGS}
    with pytest.raises(JournalError, match=says):
        await send(make_client(), path, template)
    assert server.seen == []
    after = {ending: content(path, ending) for ending in ENDINGS}
    assert after == (before | {"": b""} if damage is file_is_gone else before)


def content(path: pathlib.Path, ending: str) -> bytes | None:
    file = pathlib.Path(f"{path}{ending}")
    return file.read_bytes() if file.exists() else None


def untouched(_path: pathlib.Path) -> None:
    """As the kill left it."""


def checkpointed(path: pathlib.Path) -> None:
    """Another program opened the journal and closed it, which merges the log into the file and deletes it."""
    execute(path, "SELECT count(*) FROM item", "PRAGMA wal_checkpoint")
    assert content(path, "-wal") is None


def copied_without_the_mark(path: pathlib.Path) -> None:
    pathlib.Path(f"{path}-mark").unlink(missing_ok=True)


def torn_tail(path: pathlib.Path) -> None:
    """A transaction that was being written at the kill."""
    size, commits = frames(path)
    log = pathlib.Path(f"{path}-wal")
    tail = bytearray(log.read_bytes()[32 + size * commits[-2] :][: size + 500])
    with log.open("r+b") as file:
        file.seek(32 + size * (commits[-1] + 1))
        file.write(tail)
        file.truncate()


def mark_was_not_on_disk(path: pathlib.Path) -> None:
    """As after a power cut."""
    pathlib.Path(f"{path}-mark").write_bytes(bytes(12))


@pytest.mark.parametrize("change", [untouched, checkpointed, copied_without_the_mark, torn_tail, mark_was_not_on_disk])
async def test_a_killed_run_whose_results_are_complete_is_resumed(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    change: Callable[[pathlib.Path], None],
) -> None:
    """Accepted items are skipped, and those in flight are unknown."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(killed, path, template)
    change(path)
    outcomes = await send(make_client(), path, template)
    assert [outcome.delivery for outcome in outcomes] == [Delivery.SKIPPED] * 6 + [Delivery.UNKNOWN] * 6
    assert server.seen == []
    assert names(tmp_path, "run.db") == ["run.db"], "a finished journal is one file"


async def test_a_run_needs_no_call_that_windows_lacks(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only that: nothing here runs on Windows."""
    for name in ("pwrite", "pread", "fchmod"):
        monkeypatch.delattr(os, name)
    outcomes = await send(make_client(), tmp_path / "run.db", template)
    assert [outcome.delivery for outcome in outcomes] == [Delivery.ACCEPTED] * len(NUMBERS)
    assert len(server.seen) == len(NUMBERS)


@pytest.mark.parametrize("allowed", [0, 1])
async def test_a_journal_whose_mark_cannot_be_written_is_usable_later(
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: int,
) -> None:
    """A run that could not begin leaves nothing that looks like a lost result."""
    path = tmp_path / "run.db"
    calls = 0
    write = CommitMark.write

    def fails(mark: CommitMark, commits: int) -> None:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(mark, commits)

    monkeypatch.setattr(CommitMark, "write", fails)
    with pytest.raises(JournalError, match="the disk is full"):
        await send(make_client(), path, template)
    monkeypatch.setattr(CommitMark, "write", write)
    outcomes = await send(make_client(), path, template)
    assert {outcome.delivery for outcome in outcomes} == {Delivery.ACCEPTED}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE item SET status = 0 WHERE id = 1",
        "UPDATE item SET status = 0, provider_id = NULL WHERE id = 1",
        "UPDATE item SET position = position + 1 WHERE id = 3",
        "UPDATE item SET possible_duplicate = 1 WHERE id = 3",
        "UPDATE item SET possible_duplicate = NULL WHERE id = 3",
        "UPDATE item SET again = 1 WHERE id = 3",
        "UPDATE item SET status = zeroblob(0) WHERE id = 3",
        "UPDATE item SET again = zeroblob(0) WHERE id = 3",
        "UPDATE item SET provider_id = CAST(provider_id AS BLOB) WHERE id = 3",
        "DROP TRIGGER item_stays_unknown",
        "CREATE TRIGGER other AFTER INSERT ON item BEGIN DELETE FROM item; END",
        "UPDATE sqlite_master SET sql = replace(sql, 'OLD.possible_duplicate = 1', 'OLD.possible_duplicate = 5')",
        "UPDATE sqlite_master SET sql = replace(sql, 'DEFAULT -1', 'DEFAULT -2')",
    ],
)
async def test_a_changed_record_or_schema_is_refused(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, statement: str
) -> None:
    """`integrity_check` cannot see a changed state."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template)
    seen = len(server.seen)
    execute(
        path,
        "PRAGMA ignore_check_constraints = ON",
        "PRAGMA writable_schema = ON",
        statement,
    )
    with pytest.raises(JournalError, match="damaged"):
        await send(make_client(), path, template)
    assert len(server.seen) == seen


# Unknown is sticky, and a possible duplicate is never dropped.


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ("status = 0", False),
        ("status = 3", False),
        ("status = 4, again = 1", False),
        ("status = 6", False),
        ("status = 0, possible_duplicate = 0", False),
        ("possible_duplicate = NULL", False),
        ("status = 1", True),
        ("status = 2, provider_id = 'm-1'", True),
    ],
)
@pytest.mark.parametrize("state", [JournalState.UNKNOWN, JournalState.SENDING])
def test_no_writer_can_forget_that_a_text_may_have_been_sent(
    tmp_path: pathlib.Path, template: CodeTemplate, change: str, allowed: bool, state: JournalState
) -> None:
    """The file itself enforces it, also for an unknown item that is being sent again."""
    path = tmp_path / "run.db"
    file = begin(path, template, accepted=0)
    file.apply(Batch(settled={1: (JournalState.UNKNOWN, None, "ReadTimeoutError", None, False, 1, NOW, False)}))
    if state is JournalState.SENDING:
        file.apply(Batch(intents={1: None}))
    file.close("stopped", NOW)
    statement = f"UPDATE item SET {change} WHERE id = 1"
    if allowed:
        execute(path, statement)
        return
    with pytest.raises(sqlite3.IntegrityError):
        execute(path, statement)


@pytest.mark.parametrize("end", [JournalState.PENDING, JournalState.REJECTED, JournalState.NOT_SENT])
def test_an_unknown_item_that_is_sent_again_stays_unknown_or_becomes_a_possible_duplicate(
    tmp_path: pathlib.Path, template: CodeTemplate, end: JournalState
) -> None:
    """Whatever the writer of the second attempt says, and however often the run is killed."""
    path = tmp_path / "run.db"
    file = begin(path, template, accepted=0)
    file._close_connections()
    file.open(NOW + 1)
    file.apply(Batch(intents={1: None, 2: None, 3: None}))
    accepted = Batch()
    accepted.accept(2, "m-2", 1, NOW)
    file.apply(accepted)
    file.apply(Batch(settled={1: (end, None, "BadRequestError", 400, True, 1, NOW, False)}))
    file.apply(Batch(settled={2: (end, None, "BadRequestError", 400, True, 1, NOW, False)}))
    file._close_connections()
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT status, possible_duplicate FROM item WHERE id < 4 ORDER BY id").fetchall()
    assert found == [(JournalState.UNKNOWN, 1), (JournalState.ACCEPTED, 1), (JournalState.SENDING, 1)]
    file.open(NOW + 2)
    assert file.counts() == {"unknown": 11, "accepted": 1}
    file.close("stopped", NOW)


async def test_a_possible_duplicate_is_stored_and_counted(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A resumed run and the report say it as the first run did."""
    path = tmp_path / "run.db"
    server.play(answer(502, {}), answer())
    server.play()
    for delivery in (Delivery.ACCEPTED, Delivery.SKIPPED):
        client = make_client(retry=RetryPolicy(wait_initial=0.01, wait_max=0.01))
        async with BulkSender(client, journal=path, max_in_flight=1, ordered=True) as bulk:
            outcomes = [outcome async for outcome in bulk.send(NUMBERS, template=template)]
        assert {outcome.delivery for outcome in outcomes} == {delivery}
        flags = [outcome.response.meta.possible_duplicate for outcome in outcomes if outcome.response]
        assert flags == [True] + [False] * 11
        assert (bulk.summary.possible_duplicates, bulk.summary.possible_duplicates_unrecorded) == (1, 0)
        report = await asyncio.to_thread(JournalReport.read, path)
        assert (report.possible_duplicates, report.possible_duplicates_unrecorded) == (1, 0)
    assert len(server.seen) == 13


# The format of the previous version.


def former(path: pathlib.Path) -> pathlib.Path:
    """A stopped run: two accepted items, and one of each other state."""
    shutil.copy(SAMPLES / "journal_v1.db", path)
    return path


async def test_a_journal_of_the_previous_version_is_migrated(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Every item keeps its state; whether an accepted one is a possible duplicate was not recorded."""
    path = former(tmp_path / "run.db")
    (tmp_path / "run.db-lock").touch()
    for _ in range(2):
        async with BulkSender(make_client(), journal=path, ordered=True) as bulk:
            outcomes = [outcome async for outcome in bulk.send(NUMBERS[:8], template=template)]
        responses = [outcome.response for outcome in outcomes[:2] if outcome.response]
        assert [response.message_id for response in responses] == ["m-0", "m-1"]  # type: ignore[union-attr]
        assert [response.meta.possible_duplicate for response in responses] == [None, None]
        assert bulk.summary.possible_duplicates_unrecorded == 2
        assert [outcomes[place].delivery for place in (2, 6)] == [Delivery.UNKNOWN] * 2
        assert outcomes[3].previous is Delivery.REJECTED
        assert [outcomes[place].delivery for place in (4, 5, 7)] in ([Delivery.ACCEPTED] * 3, [Delivery.SKIPPED] * 3)
    assert sorted(str(seen.document["to"]) for seen in server.seen) == [NUMBERS[place] for place in (4, 5, 7)]
    report = await asyncio.to_thread(JournalReport.read, path)
    assert (report.possible_duplicates, report.possible_duplicates_unrecorded) == (0, 2)
    assert names(tmp_path) == ["run.db"]
    policy = RetryPolicy(resend=Resend.AT_LEAST_ONCE)
    async with BulkSender(make_client(retry=policy), journal=path, ordered=True) as bulk:
        outcomes = [outcome async for outcome in bulk.send(NUMBERS[:8], template=template)]
    assert bulk.summary.possible_duplicates == 2, "the items that were unknown"


def test_a_journal_of_the_previous_version_is_reported_without_migration(tmp_path: pathlib.Path) -> None:
    """It is only read."""
    path = former(tmp_path / "run.db")
    before = path.read_bytes()
    report = JournalReport.read(path)
    assert (report.possible_duplicates, report.possible_duplicates_unrecorded) == (0, 2)
    assert (report.counts.accepted, report.counts.unknown, report.counts.sending) == (2, 1, 1)
    assert path.read_bytes() == before


async def test_a_run_of_the_previous_version_keeps_its_journal(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """It holds another lock than this version."""
    path = former(tmp_path / "run.db")
    with closing(sqlite3.connect(f"{path}-lock", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalError, match="a run of an older version is using"):
            await send(make_client(), path, template)
    assert (await asyncio.to_thread(JournalReport.read, path)).running is False, "its last session has ended"
    execute(path, "UPDATE session SET ended_at = NULL, ending = NULL")
    assert (await asyncio.to_thread(JournalReport.read, path)).running is None
    with pytest.raises(JournalError, match="last run was killed"):
        await send(make_client(), path, template)
    assert server.seen == []
