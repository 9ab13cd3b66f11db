"""The SQLite file of a store: one connection in one thread of a process, which runs changes in short transactions."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import random
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from .._process import PerProcess
from .._sqlite import FileLock, SQLiteFault, abandon, classify, decode
from ..errors import JournalError, StoreError
from ._transitions import FORMAT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ._step import StoredRecord

_LOG: Final = logging.getLogger("bandwidth_mfa_async.stores")
APPLICATION_ID: Final = 0x42_57_4B_59
"""Marks the file as a store, so that another program's database is not written to."""
_MIN_SQLITE: Final = (3, 24)
_MAX_BATCH: Final = 64
_MAX_PAUSE: Final = 0.01
"""Seconds between two tries while another process writes; a transaction takes less, and most of it is one fsync."""
_SWEEP_SHARE: Final = 4
"""Expired records that are removed for each change, which stores at most one: so they do not pile up."""
_SWEEP_SIZE: Final = 500
"""Expired records that are removed at once from a full file."""
_PAGE_SIZE: Final = 4_096
_NETWORK: Final = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("ocfs2", "orangefs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs"),
}
_SCHEMA: Final = (
    "CREATE TABLE record (name TEXT PRIMARY KEY, value TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX record_expires ON record (expires)",
    # `reader` is the oldest format whose code may use the file: formats N and N+1 work on one file.
    "CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"INSERT INTO fact VALUES ('reader', '{FORMAT}'), ('format', '{FORMAT}')",  # noqa: S608 - our own number
    f"PRAGMA application_id = {APPLICATION_ID}",
)
_PUT: Final = (
    "INSERT INTO record VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires = excluded.expires"
)
_SWEEP: Final = "DELETE FROM record WHERE name IN (SELECT name FROM record WHERE expires <= ? ORDER BY expires LIMIT ?)"
_COUNT: Final = """
SELECT substr(name, 1, instr(name, ':') - 1), coalesce(json_extract(value, '$.s'), ''), count(*) FROM record
WHERE expires > ? GROUP BY 1, 2
"""


class Job:
    """A change to run, and the future of its reply.

    Args:
        keys: the names of the records; empty for a look at the whole file.
        change: the `Change`; for a look, a function of the connection and the time.
        until: when to give up, in seconds of `time.monotonic`.
        is_read: whether it stores nothing.
        future: the future of the reply, in its loop.
    """

    __slots__ = ("change", "future", "is_read", "keys", "loop", "until")

    def __init__(
        self,
        keys: Sequence[str],
        change: Callable[..., Any],
        until: float,
        *,
        is_read: bool,
        future: asyncio.Future[Any],
    ) -> None:
        self.keys = keys
        self.change = change
        self.until = until
        self.is_read = is_read
        self.future = future
        self.loop = future.get_loop()

    def end(self, reply: Any, error: BaseException | None) -> None:
        """Complete the future, from the thread."""

        def complete() -> None:
            """Complete it, in its loop."""
            if self.future.done():
                return
            if error is None:
                self.future.set_result(reply)
            else:
                self.future.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(complete)


class StoreFile:
    """The file. All methods but `submit` and `stop` run in its thread.

    Args:
        path: the file.
        max_size: the largest size of the file in bytes.
        allow_network_mount: whether a network or FUSE mount is allowed.
        wall_clock: returns Unix time in seconds.
        after: the thread that closes the same file now; it has the lock until it ends.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size: int,
        allow_network_mount: bool,
        wall_clock: Callable[[], float],
        after: threading.Thread | None = None,
    ) -> None:
        self._after = after
        self.path: str = path
        self.users: int = 0
        self._max_size = max_size
        self._allow_network_mount = allow_network_mount
        self._wall_clock = wall_clock
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._lock: FileLock | None = None
        self._thread = threading.Thread(target=self._loop, name="bandwidth-mfa-store", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Schedule a job."""
        self._jobs.put(job)

    def stop(self) -> threading.Thread:
        """Close once all scheduled jobs have run; return the thread that does so."""
        self._jobs.put(None)
        return self._thread

    def _loop(self) -> None:
        if self._after is not None:
            self._after.join()
            self._after = None
        while (job := self._jobs.get()) is not None:
            batch, stops = [job], False
            while len(batch) < _MAX_BATCH and not stops:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stops = True
                else:
                    batch.append(following)
            self._run(batch)
            # The jobs' futures and closures must not live until the next one comes.
            del job, batch
            following = None
            if stops:
                break
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _run(self, batch: list[Job]) -> None:
        """Run jobs in one transaction. If it fails, run each in its own: one of them may have met a full file."""
        ended: list[tuple[Job, Any, BaseException | None]] = []
        try:
            self._open()
            waiting = self._begin(batch)
            if waiting:
                ended = self._run_all(waiting)
        except (sqlite3.Error, OSError, JournalError, StoreError) as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error) and classify(error)[0] is SQLiteFault.FULL and self._make_room():
                self._run(batch)
                return
            if len(batch) > 1 and self._db is not None:
                for job in batch:
                    self._run([job])
                return
            text = self._advice(error)
            ended = [(job, None, StoreError(text)) for job in batch]
            if self._db is not None and isinstance(error, sqlite3.Error) and classify(error)[0] is SQLiteFault.DAMAGED:
                self._close()
        except BaseException as error:  # noqa: BLE001 - a defect: the thread must go on, and the callers must know
            self._roll_back()
            ended = [(job, None, error) for job in batch]
        for job, reply, failure in ended:
            job.end(reply, failure)

    def _make_room(self) -> bool:
        """Remove expired records from a full file; return whether there were any."""
        assert self._db is not None  # noqa: S101 - it is full
        try:
            cursor = self._db.execute(_SWEEP, (self._now(), _SWEEP_SIZE))
        except sqlite3.Error:
            return False
        return cursor.rowcount > 0

    def _now(self) -> int:
        return round(self._wall_clock() * 1000)

    def _begin(self, batch: list[Job]) -> list[Job]:
        """Begin a transaction, and return the jobs whose time is not over.

        The busy wait is ours: SQLite's own sleeps up to 0.1 s between tries, and was seen to take its whole timeout.
        """
        db = self._db
        assert db is not None  # noqa: S101 - open
        statement = "BEGIN" if all(job.is_read for job in batch) else "BEGIN IMMEDIATE"
        while True:
            now = time.monotonic()
            waiting = [job for job in batch if now < job.until]
            for job in batch:
                if now >= job.until:
                    text = f"{self.path}: the store did not answer in time; the disk is slow, or a program is writing"
                    job.end(None, StoreError(text))
            batch = waiting
            if not batch:
                return batch
            try:
                db.execute(statement)
                db.execute("SELECT count(*) FROM fact")  # where a read, too, waits for the recovery of the log
            except sqlite3.OperationalError as error:
                self._roll_back()
                if classify(error)[0] is not SQLiteFault.BUSY:
                    raise
                time.sleep(random.uniform(0.0005, _MAX_PAUSE))  # noqa: S311 - jitter
            else:
                return batch

    def _run_all(self, batch: list[Job]) -> list[tuple[Job, Any, BaseException | None]]:
        db = self._db
        assert db is not None  # noqa: S101 - open
        now = self._now()
        ended: list[tuple[Job, Any, BaseException | None]] = []
        changed = 0
        for job in batch:
            if not job.keys:
                ended.append((job, job.change(db, now), None))
                continue
            found = [self._get(db, key) for key in job.keys]
            try:
                reply, changes = job.change(found, now)
            except Exception as error:  # noqa: BLE001 - a defect of this change, which has stored nothing
                ended.append((job, None, error))
                continue
            changed += len(changes)
            for index, record in changes.items():
                if record is None:
                    db.execute("DELETE FROM record WHERE name = ?", (job.keys[index],))
                else:
                    db.execute(_PUT, (job.keys[index], json.dumps(record, separators=(",", ":")), record["e"]))
            ended.append((job, reply, None))
        if changed:  # a read must not need the lock of writers
            db.execute(_SWEEP, (now, _SWEEP_SHARE * changed))
        db.execute("COMMIT")
        return ended

    @staticmethod
    def _get(db: sqlite3.Connection, key: str) -> StoredRecord | None:
        row = db.execute("SELECT value FROM record WHERE name = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _advice(self, error: BaseException) -> str:
        if isinstance(error, StoreError):
            return error.message
        if isinstance(error, (sqlite3.Error, OSError)):
            fault, text = classify(error)
            if fault is SQLiteFault.FULL:
                return (
                    f"{self.path}: the store is full: the disk is, or the file has reached max_size "
                    f"({self._max_size:,} bytes); free some space, or raise max_size"
                )
            detail = f" ({text})" if fault is SQLiteFault.OTHER else ""
            return f"{self.path}: the store cannot be used: {fault.value}{detail}"
        return str(error)

    def _open(self) -> None:
        if self._db is not None:
            self._check_file(self._db)
            return
        if sqlite3.sqlite_version_info < _MIN_SQLITE:
            raise StoreError(f"the store needs SQLite 3.24 or later, and this Python has {sqlite3.sqlite_version}")
        # Without symbolic links, so that SQLite and the lock use the same name.
        path = os.path.realpath(self.path)
        folder = os.path.dirname(path)  # noqa: PTH120 - a str all the way to SQLite
        kind = None if self._allow_network_mount else network_mount(folder)
        if kind is not None:
            raise StoreError(
                f"{self.path}: the folder is on a {kind} mount, whose locks SQLite cannot trust: two processes could "
                "send one text twice. Use a local disk or a RedisStore, or pass allow_network_mount=True"
            )
        lock, db = FileLock(path, is_shared=True), None
        lock.acquire()
        try:
            db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._prepare(db)
        except BaseException:
            if db is not None:
                db.close()
            lock.release()
            raise
        self._db, self._lock = db, lock

    def _check_file(self, db: sqlite3.Connection) -> None:
        """Check that the path still names the open file; otherwise the next change opens the new one.

        Raises:
            StoreError: the file was removed or replaced.
        """
        assert self._lock is not None  # noqa: S101 - open
        if self._lock.names_the_file():
            return
        abandon(db)
        self._lock.release()
        self._db = self._lock = None
        text = (
            f"{self.path}: the store's file was removed or replaced while it was open; the keys that it held are lost, "
            "and the next call uses the new file"
        )
        _LOG.error(text)
        raise StoreError(text)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Set the options of a connection, and make the tables of a new file."""
        db.text_factory = decode
        until, mode = time.monotonic() + 5.0, ""
        while True:
            try:
                (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA fullfsync = ON")
                self._make_tables(db)
            except sqlite3.OperationalError as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if classify(error)[0] is not SQLiteFault.BUSY or time.monotonic() >= until:
                    raise
                time.sleep(random.uniform(0.0005, _MAX_PAUSE))  # noqa: S311 - jitter
            else:
                break
        if mode != "wal":
            raise StoreError(f"{self.path}: the store cannot be used: SQLite cannot keep a write-ahead log there")
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute(f"PRAGMA max_page_count = {max(16, self._max_size // size)}")

    def _make_tables(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        (mark,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            for statement in _SCHEMA:
                db.execute(statement)
        elif mark != APPLICATION_ID:
            raise StoreError(f"{self.path}: this file holds another program's data; name another file")
        else:
            (reader,) = db.execute("SELECT value FROM fact WHERE name = 'reader'").fetchone()
            if int(reader) > FORMAT:
                raise StoreError(
                    f"{self.path}: the store was written by a newer bandwidth-mfa-async (it needs format {reader}, "
                    f"this one reads format {FORMAT}); upgrade with pip install -U bandwidth-mfa-async"
                )
        db.execute("COMMIT")


def count_records(db: sqlite3.Connection, now: int) -> list[tuple[str, str, int]]:
    """Return kind, state and number of the records."""
    return [(kind, str(state), number) for kind, state, number in db.execute(_COUNT, (now,))]


def network_mount(folder: str) -> str | None:
    """Return the kind of the network or FUSE mount that a folder is on; None if it is local or cannot be determined."""
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116 - a str all the way to SQLite
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no user's path
            lines = file.readlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            kind = right.split()[0]
            return kind if kind in _NETWORK or kind.startswith("fuse") else None
    return None


class _Files:
    """The files of this process: open ones, and the threads that close one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: dict[str, StoreFile] = {}
        self.closing: dict[str, threading.Thread] = {}


_files: Final[PerProcess[_Files]] = PerProcess(_Files)


def open_file(path: str, make: Callable[[threading.Thread | None], StoreFile]) -> StoreFile:
    """Return this process's only `StoreFile` of a path, and count its user.

    Args:
        path: the file.
        make: makes the file; its argument is the thread that must end before.
    """
    state = _files.get()
    with state.lock:
        file = state.files.get(path)
        if file is None:
            file = state.files[path] = make(state.closing.pop(path, None))
        file.users += 1
        return file


def close_file(file: StoreFile) -> threading.Thread | None:
    """Uncount a user. The last one stops the file; the thread that closes it is returned."""
    state = _files.get()
    with state.lock:
        file.users -= 1
        if file.users:
            return None
        state.files.pop(file.path, None)
        thread = state.closing[file.path] = file.stop()
        return thread
