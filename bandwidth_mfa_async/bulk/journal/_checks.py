"""Checks of a journal's files before anything is sent: damage, missing results, and the mark of the latest commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._sqlite import check_health, count_wal_damage, damaged_message, decode
from ...errors import JournalError
from . import _schema

if TYPE_CHECKING:
    from collections.abc import Generator

_MARK: Final = struct.Struct(">QI")
# `IS NOT`: a damaged column may be NULL.
_WRONG_SEAL: Final = f"seal IS NOT {_schema.seal_sql()}"
# One bit turns a 0 into an empty blob, which has the same seal, and a text into a blob. Numbers sort before all texts,
# and texts before all blobs; these comparisons take a third of the time of `typeof`.
_WRONG_TYPE: Final = (
    "again NOT IN (0, 1) OR possible_duplicate NOT IN (0, 1) OR attempts >= '' OR http_status >= '' "
    "OR provider_id >= x'' OR cause >= x'' OR payload < x''"
)


class CommitMark:
    """The number of the journal's latest commit, in a file of its own, so that a lost commit is noticed.

    SQLite takes a write-ahead log that is cut at the end of a transaction, or that is missing, for a complete one. The
    mark is written after each commit, without waiting for the disk, so it is never ahead of the journal: not after a
    kill, and not after a power cut.

    Args:
        path: path of the journal; the mark is ``<path>-mark``.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}-mark"
        self._fd: int | None = None

    def read(self) -> int | None:
        """Return the stored number; None if there is none.

        Raises:
            JournalError: the file is damaged.
        """
        try:
            content = Path(self._path).read_bytes()
        except FileNotFoundError:
            return None
        if not content.strip(b"\0"):  # its content was not on disk when the power was cut
            return None
        if len(content) == _MARK.size:
            commits, checksum = _MARK.unpack(content)
            if zlib.crc32(content[:8]) == checksum:
                return int(commits)
        raise JournalError(
            f"{self._path}: this file is damaged, so the journal cannot be checked; restore it "
            "together with the journal"
        )

    def write(self, commits: int) -> None:
        """Store the number of the latest commit."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        number = commits.to_bytes(8, "big")
        os.lseek(self._fd, 0, os.SEEK_SET)  # Windows has no `pwrite`
        os.write(self._fd, number + zlib.crc32(number).to_bytes(4, "big"))

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Remove the file: the journal is complete without a write-ahead log."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - a str all the way


def check_journal(path: str) -> int:
    """Return the format of a journal, 0 for an empty file, after checking that its files are complete and undamaged.

    Nothing is changed: the file is opened read-only, also because SQLite would merge and delete the write-ahead log.

    Args:
        path: the file, without symbolic links, locked by this process.

    Raises:
        JournalError: the file is damaged, incomplete, not a journal, or from a newer version of this library.
    """
    mark = CommitMark(path).read()
    damage = count_wal_damage(path)
    # After a power cut the last transaction may be incomplete in any of its frames; the mark says if it was committed.
    if damage is not None and damage > (mark is not None):
        raise JournalError(damaged_message(path, "its -wal file has bad frames before good ones"))
    if not os.stat(path).st_size:  # noqa: PTH116 - a str all the way to SQLite
        if damage is not None or mark:
            raise JournalError(
                f"{path}: this file is missing or empty, but files of an earlier journal are beside it (-wal, -mark); "
                "restore the journal, or remove these files too: all items would then be sent again"
            )
        return 0
    mode = "immutable=1" if damage is None else "mode=ro"
    address = f"{Path(path).absolute().as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=5)) as db:
        db.text_factory = decode
        try:
            version = check_schema_version(db, path)
            if version:
                check_health(db, path)
                _check_content(db, path, version)
            _check_complete(db, path, version, mark, has_wal=damage is not None)
        except (TypeError, ValueError, OverflowError):
            # SQLite does not enforce column types: a number column may contain text.
            raise JournalError(damaged_message(path, "a value that no run writes")) from None
    return version


def _check_content(db: sqlite3.Connection, path: str, version: int) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for step in _schema.MIGRATIONS[:version]:
            for statement in step:
                model.execute(statement)
        expected, found = _objects(model), _objects(db)
    triggers = {entry for entry in found if entry[0] == "trigger"}
    if not expected <= found or not triggers <= expected:
        raise JournalError(damaged_message(path, "its schema"))
    if version > 1:
        query = f"SELECT 1 FROM item WHERE {_WRONG_SEAL} OR {_WRONG_TYPE} LIMIT 1"  # noqa: S608 - our own columns
        if db.execute(query).fetchone():
            raise JournalError(damaged_message(path, "an item does not match its checksum"))


def _objects(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    rows = db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in rows}


def _check_complete(db: sqlite3.Connection, path: str, version: int, mark: int | None, *, has_wal: bool) -> None:
    commits, has_ended = 0, True
    if version:
        row = db.execute("SELECT ended_at IS NOT NULL FROM session ORDER BY id DESC LIMIT 1").fetchone()
        has_ended = row is None or bool(row[0])
    if version > 1:
        (commits,) = db.execute("SELECT coalesce(max(commits), 0) FROM session").fetchone()
    missing = 0 if mark is None else mark - commits
    if missing <= 0 and (has_ended or has_wal or mark is not None):
        return
    what = f"its newest {missing} transactions are missing" if missing > 0 else "its last run was killed"
    raise JournalError(
        f"{path}: {what}, and the -wal file with the newest results is {'damaged or cut' if has_wal else 'not there'}; "
        "put back the -wal and -mark files that the run left beside the journal. Without them, every item that was "
        "sent since would be sent again"
    )


def check_schema_version(db: sqlite3.Connection, path: str) -> int:
    """Return the schema version of a journal; 0 for an empty file.

    Raises:
        JournalError: the file is not a journal, or from a newer version of this library.
    """
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    newest = len(_schema.MIGRATIONS)
    if application_id == _schema.APPLICATION_ID and 0 < version <= newest:
        return version
    if application_id == _schema.APPLICATION_ID:
        raise JournalError(
            f"{path}: this journal was made by a newer bandwidth-mfa-async (its format is {version}, "
            f"this version reads up to {newest}); upgrade with pip install -U bandwidth-mfa-async"
        )
    if application_id or version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise JournalError(f"{path}: this is another program's database, not a journal; name another file")
    return 0


@contextlib.contextmanager
def former_lock(path: str, version: int) -> Generator[None]:
    """Keep a run of an older version out while its journal is migrated; it locks the SQLite file ``<path>-lock``.

    Args:
        path: the journal.
        version: its format; only a journal of the first format can have such a run.

    Raises:
        JournalError: such a run uses the journal.
    """
    name = f"{path}-lock"
    if version != 1 or not os.path.exists(name):  # noqa: PTH110 - a str all the way to SQLite
        yield
        return
    with contextlib.closing(sqlite3.connect(name, timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise JournalError(
                f"{path}: a run of an older version is using this journal; wait until it has ended"
            ) from None
        yield
        os.unlink(name)  # noqa: PTH108 - a str all the way to SQLite
