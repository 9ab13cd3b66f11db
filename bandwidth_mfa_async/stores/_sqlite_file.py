"""The SQLite file of a store: one connection in one thread of a process, which runs changes in short transactions."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import sqlite3
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._sqlite import FileInUseError, FileLock, SQLiteFault, abandon, classify, decode
from ..errors import JournalError, StoreError
from ._sqlite_checks import Places, check_file, check_folder, damaged
from ._transitions import FORMAT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ._step import StoredRecord

APPLICATION_ID: Final = 0x42_57_4B_59
"""Marks the file as a store, so that another program's database is not written to."""
_MIN_SQLITE: Final = (3, 24)
_MAX_BATCH: Final = 64
_MAX_PAUSE: Final = 0.01
"""Seconds between two tries while another process writes; a transaction takes less, and most of it is one fsync."""
_SWEEP_SHARE: Final = 4
"""Expired records that are removed for each one that is stored, so that they do not pile up."""
_SWEEP_SIZE: Final = 500
"""Expired records that are removed at once from a full file."""
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
SELECT substr(name, 1, instr(name, ':') - 1), coalesce(json_extract(substr(value, 9), '$.s'), ''), count(*) FROM record
WHERE expires > ? GROUP BY 1, 2
"""


def _seal(name: str, text: str) -> str:
    """Return the checksum of a record, because SQLite's own check does not see a bit that changes a value."""
    return f"{zlib.crc32(f'{name}{text}'.encode()):08x}"


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


Ended: TypeAlias = tuple[Job, Any, BaseException | None]
"""A job with its reply or its error."""


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
        self._places = Places()
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
            try:
                self._places.check(self.path)
            except (StoreError, OSError):
                abandon(self._db)
            else:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _run(self, batch: list[Job]) -> None:
        """Run jobs in one transaction. If it fails, run each in its own: one of them may have met a full file."""
        try:
            ended = self._transact(batch)
        except (sqlite3.Error, OSError, JournalError, StoreError) as error:
            self._roll_back()
            if len(batch) > 1 and self._db is not None:
                for job in batch:
                    self._run([job])
                return
            fault = classify(error)[0] if isinstance(error, (sqlite3.Error, OSError)) else None
            if fault is SQLiteFault.FULL and self._sweep_alone():
                self._run(batch)
                return
            text = self._advice(error)
            ended = [(job, None, StoreError(text)) for job in batch]
            if fault is SQLiteFault.DAMAGED:
                self._close()
        except BaseException as error:  # noqa: BLE001 - a defect: the thread must go on, and the callers must know
            self._roll_back()
            ended = [(job, None, error) for job in batch]
        for job, reply, failure in ended:
            job.end(reply, failure)

    def _transact(self, batch: list[Job]) -> list[Ended]:
        """Run jobs in one transaction; begin it again while another process is in the way, until their time is over.

        The busy wait is ours: SQLite's own sleeps up to 0.1 s between tries, and was seen to take its whole timeout.
        """
        while batch := self._in_time(batch):
            try:
                self._open(max(job.until for job in batch))
                return self._run_all(batch)
            except FileInUseError:  # another process checks the file before it opens it
                pass
            except sqlite3.OperationalError as error:
                self._roll_back()
                if classify(error)[0] is not SQLiteFault.BUSY:
                    raise
            time.sleep(random.uniform(0.0005, _MAX_PAUSE))  # noqa: S311 - jitter
        return []

    def _in_time(self, batch: list[Job]) -> list[Job]:
        """Return the jobs whose time is not over, and end the others."""
        now = time.monotonic()
        for job in batch:
            if now >= job.until:
                text = f"{self.path}: the store did not answer in time; the disk is slow, or a program is writing"
                job.end(None, StoreError(text))
        return [job for job in batch if now < job.until]

    def _run_all(self, batch: list[Job]) -> list[Ended]:
        db = self._db
        assert db is not None  # noqa: S101 - open
        is_read = all(job.is_read for job in batch)
        db.execute("BEGIN" if is_read else "BEGIN IMMEDIATE")
        now = round(self._wall_clock() * 1000)
        ended: list[Ended] = []
        stored = 0
        for job in batch:
            if not job.keys:
                ended.append((job, job.change(db, now), None))
                continue
            try:
                reply, changes = job.change([self._get(db, key) for key in job.keys], now)
            except sqlite3.Error:
                raise
            except Exception as error:  # noqa: BLE001 - a damaged record, or a defect of this change, which stored nothing
                ended.append((job, None, error))
                continue
            index: int
            for index, record in changes.items():
                self._put(db, job.keys[index], record)
            stored += len(changes)
            ended.append((job, reply, None))
        if stored:
            db.execute(_SWEEP, (now, _SWEEP_SHARE * stored))
        self._places.check(self.path)
        db.execute("COMMIT")
        return ended

    def _sweep_alone(self) -> bool:
        """Delete expired records of a full file; return whether there were any."""
        db = self._db
        if db is None:
            return False
        try:
            return db.execute(_SWEEP, (round(self._wall_clock() * 1000), _SWEEP_SIZE)).rowcount > 0
        except sqlite3.Error:
            return False

    def _get(self, db: sqlite3.Connection, key: str) -> StoredRecord | None:
        row = db.execute("SELECT value FROM record WHERE name = ?", (key,)).fetchone()
        if row is None:
            return None
        text = row[0][8:]
        if row[0][:8] != _seal(key, text):
            raise StoreError(damaged(self.path, "a record does not match its checksum"))
        record: StoredRecord = json.loads(text)
        return record

    def _put(self, db: sqlite3.Connection, key: str, record: StoredRecord | None) -> None:
        if record is None:
            db.execute("DELETE FROM record WHERE name = ?", (key,))
            return
        text = json.dumps(record, separators=(",", ":"))
        db.execute(_PUT, (key, _seal(key, text) + text, record["e"]))

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

    def _open(self, until: float) -> None:
        if self._db is not None:
            return
        if sqlite3.sqlite_version_info < _MIN_SQLITE:
            raise StoreError(f"the store needs SQLite 3.24 or later, and this Python has {sqlite3.sqlite_version}")
        # Without symbolic links, so that SQLite and the lock use the same name.
        path = os.path.realpath(self.path)
        if not self._allow_network_mount:
            check_folder(self.path, os.path.dirname(path))  # noqa: PTH120 - a str all the way to SQLite
        lock, db = FileLock(path, is_shared=True), None
        lock.acquire()
        try:
            if lock.is_alone:
                check_file(path, APPLICATION_ID)
                lock.share()
            db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._prepare(db, until)
            self._places.record(os.path.abspath(self.path), path)  # noqa: PTH100 - a str all the way
        except BaseException:
            if db is not None:
                db.close()
            lock.release()
            raise
        self._db, self._lock = db, lock

    def _prepare(self, db: sqlite3.Connection, until: float) -> None:
        """Set the options of a connection, and make the tables of a new file."""
        db.text_factory = decode
        mode = ""
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
