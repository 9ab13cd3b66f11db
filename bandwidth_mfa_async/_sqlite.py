"""Shared SQLite mechanisms: the lock of a file, private creation, transactions, health checks and error translation."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import sqlite3
import stat
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ._redaction import scrub
from .errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Descriptors of the files that this process has locked, by device and inode. Every open of such a file goes through
# `FileLock`: closing any descriptor of a file drops all POSIX locks that SQLite has on it in this process.
_held: dict[tuple[int, int], list[int]] = {}
_guard: Final = threading.RLock()

_LOCK_TRIES: Final = 3
_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")
_WAL_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}
_WAL_FORMAT: Final = 3_007_000
_WORD: Final = 0xFFFFFFFF


class FileInUseError(JournalError):
    """Another process has the lock of a file."""


class FileLock:
    """A lock on the inode of an SQLite file; the end of the process releases it.

    A shared lock is exclusive at first if no other process has one: check the file while `is_alone`, then `share` it.

    A lock on the file itself also excludes processes that reach it by another name, such as a hard link or a bind
    mount, and does not block readers: SQLite uses POSIX locks, this is a `flock`. Acquire it before SQLite opens the
    file, and release it after SQLite has closed it.

    Args:
        path: the file, without symbolic links.
        is_shared: whether other processes may hold it too, if they share it as well. Never more than one in a process.
    """

    def __init__(self, path: str, *, is_shared: bool = False) -> None:
        self.path = path
        self._is_shared = is_shared
        self.is_alone = False
        self._inode: tuple[int, int] | None = None

    def acquire(self) -> bool:
        """Lock the file; create it, readable by its owner only, if it does not exist. Return whether it is new.

        Raises:
            FileInUseError: the file is locked.
            JournalError: the file is not a regular file, or has other names that SQLite does not know.
            OSError: the file cannot be opened.
        """
        with _guard:
            try:
                found = os.stat(self.path)  # noqa: PTH116 - a str all the way to SQLite
            except FileNotFoundError:
                pass
            else:
                self._check(found)
                if (found.st_dev, found.st_ino) in _held:
                    raise self._in_use()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                status = os.fstat(fd)
                self._check(status)
                if _is_mount_point(fd, self.path):
                    raise JournalError(
                        f"{self.path}: this file is a mount point by itself; mount its folder, not the file: the "
                        "files that SQLite keeps beside it hold its newest results"
                    )
                # On Windows a byte cannot be locked for several, so no process knows that it is alone.
                self.is_alone = sys.platform != "win32" and _flock(fd, is_shared=False, tries=1)
                if not self.is_alone and not _flock(fd, is_shared=self._is_shared):
                    raise self._in_use()
            except BaseException:
                os.close(fd)
                raise
            self._inode = (status.st_dev, status.st_ino)
            _held[self._inode] = [fd]
            return status.st_size == 0

    def share(self) -> None:
        """Let other processes have the lock too; do so before SQLite opens the file.

        Raises:
            FileInUseError: one of them took it for itself.
        """
        with _guard:
            if not self.is_alone or self._inode is None:
                return
            if not _flock(_held[self._inode][0], is_shared=True):
                raise self._in_use()
            self.is_alone = False

    def release(self) -> None:
        """Release the lock, if it is held. SQLite must have closed the file."""
        with _guard:
            fds = [] if self._inode is None else _held.pop(self._inode, [])
            self._inode = None
            for fd in fds:
                os.close(fd)

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise JournalError(f"{self.path}: this is a folder; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise JournalError(f"{self.path}: this is not a regular file; name a file on a local disk")
        if status.st_nlink > 1:
            raise JournalError(
                f"{self.path}: this file has {status.st_nlink} names (hard links), and SQLite keeps its newest results "
                "beside only one of them; remove the other names"
            )

    def _in_use(self) -> JournalError:
        return FileInUseError(
            f"{self.path}: another run is using this journal; wait until it has ended, or name another file"
        )


def abandon(db: sqlite3.Connection) -> None:
    """Never close a connection, not even at the end of the process, because its file was removed or replaced.

    SQLite removes the write-ahead log by its name when it closes the file, and that log may belong to another one now.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def _flock(fd: int, *, is_shared: bool, tries: int = _LOCK_TRIES) -> bool:
    """Lock a file, for this process only or shared; return False if another process holds it."""
    for _ in range(tries):
        try:
            if sys.platform == "win32":
                if is_shared:
                    return True  # a byte cannot be locked for several
                os.lseek(fd, 1 << 62, os.SEEK_SET)  # beyond all that SQLite reads or locks
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(fd, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(0.01)  # a report holds the lock for an instant
        else:
            return True
    return False


def _is_mount_point(fd: int, path: str) -> bool:
    """Return whether a file is mounted without its folder; False where the system does not say."""
    if not hasattr(os, "O_PATH"):
        return os.path.ismount(path)
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH)  # noqa: PTH120
    try:
        return _mount_id(fd) != _mount_id(folder)
    finally:
        os.close(folder)


def _mount_id(fd: int) -> str:
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:  # noqa: PTH123 - no path of a user
            return next((line for line in file if line.startswith("mnt_id")), "")
    except OSError:
        return ""


def _close_in_child() -> None:
    """Close the descriptors that a fork inherited: the lock belongs to the parent, and ends with it."""
    for fds in _held.values():
        for fd in fds:
            os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def lock_probe(path: str) -> Generator[Callable[[], bool | None]]:
    """Yield a function that returns whether a process holds the `FileLock` of a file; None if it cannot be determined.

    Enter this before SQLite opens the file and leave it after SQLite has closed it, for the reason given at `_held`.

    Args:
        path: the file, without symbolic links.
    """
    with _guard:
        status = os.stat(path)  # noqa: PTH116 - a str all the way to SQLite
        inode = (status.st_dev, status.st_ino)
        fd = None
        if inode not in _held and sys.platform != "win32":
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY)

    def is_locked() -> bool | None:
        if inode in _held:
            return True
        if sys.platform == "win32" or fd is None:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(fd, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False

    try:
        yield is_locked
    finally:
        with _guard:
            if fd is not None and inode in _held:  # by a run of this process that started meanwhile
                _held[inode].append(fd)
            elif fd is not None:
                os.close(fd)


def count_wal_damage(path: str) -> int | None:
    """Check the write-ahead log of a file, which SQLite cuts silently at the first bad frame.

    A log may end with an incomplete transaction, as after a kill. Bad frames that are followed by a good commit of the
    same generation are damage.

    Args:
        path: the file; its log is ``<path>-wal``.

    Returns:
        None without a log, else the number of good commits behind the first bad frame.

    Raises:
        JournalError: the header of the log is damaged.
    """
    try:
        file = open(f"{path}-wal", "rb")  # noqa: PTH123, SIM115 - a str all the way to SQLite
    except FileNotFoundError:
        return None
    with file:
        raw = file.read(_WAL_HEADER.size)
        if not raw:
            return None
        header = _WAL_HEADER.unpack(raw) if len(raw) == _WAL_HEADER.size else (0,) * 8
        magic, version, page_size, _, *salts, first, second = header
        order = _WAL_MAGIC.get(magic)
        if order is None or version != _WAL_FORMAT or _checksum((0, 0), raw[:24], order) != (first, second):
            raise JournalError(damaged_message(path, "the header of its -wal file"))
        stored, is_whole, commits = (first, second), True, 0
        while len(frame := file.read(_FRAME_HEADER.size + page_size)) == _FRAME_HEADER.size + page_size:
            page, size, *frame_salts, first, second = _FRAME_HEADER.unpack_from(frame)
            is_good = False
            # Behind a bad frame, each frame is checked against what the frame before it says of itself. Frames of an
            # earlier generation have other salts.
            if frame_salts == salts and page and (is_whole or size):
                seed = _checksum(stored, frame[:8], order)
                is_good = _checksum(seed, frame[_FRAME_HEADER.size :], order) == (first, second)
            if is_whole and not is_good:
                is_whole = False
            elif not is_whole and is_good:
                commits += 1
            stored = (first, second)
        return commits


def _checksum(seed: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    first, second = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second


def check_health(db: sqlite3.Connection, path: str) -> None:
    """Raise a `JournalError` if the file is damaged: an item whose row is lost would be sent again."""
    if not is_healthy(db):
        raise JournalError(damaged_message(path))


def is_healthy(db: sqlite3.Connection) -> bool:
    """Return whether the file is undamaged, as far as SQLite can say: its pages, and its indexes against its tables."""
    # The index of keys is read in a random order; mapped pages save a third of the time.
    db.execute(f"PRAGMA mmap_size = {1 << 36}")
    (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    return bool(verdict == "ok")


def decode(raw: bytes) -> str:
    """Decode text of a file that may be damaged; set this as a connection's `text_factory`."""
    return raw.decode(errors="replace")


def damaged_message(path: str, what: str = "") -> str:
    """Return what to do about a damaged file.

    Args:
        path: the file.
        what: the part that is damaged.
    """
    problem = f"this journal is damaged ({what})" if what else "this journal is damaged, or not a journal"
    return (
        f"{path}: {problem}; restore a copy of it together with the files beside it, or recover it with sqlite3's "
        ".recover. Every item that was sent after the copy was made would be sent again, and with a new journal all "
        "would be"
    )


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Any:
    """Run the body in one write transaction: commit it, or roll it back on any exception."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


class SQLiteFault(enum.Enum):
    """What an error of SQLite, or of the operating system about its file, means."""

    FULL = "the disk is full"
    READ_ONLY = "it cannot be written; make the file and its folder writable, or name another file"
    CANNOT_OPEN = "it cannot be opened; name a file in a folder that exists and can be written"
    DAMAGED = "it is damaged, or not of this package"
    BUSY = "another program is writing to it"
    OTHER = "it cannot be used"


# Phrases in the lower-case text of an error, and the fault that each identifies.
_PHRASES: Final = (
    (SQLiteFault.FULL, ("full", "no space")),
    (SQLiteFault.READ_ONLY, ("readonly", "read-only", "permission")),
    (SQLiteFault.CANNOT_OPEN, ("unable to open", "no such file", "directory")),
    (SQLiteFault.DAMAGED, ("malformed", "not a database")),
    (SQLiteFault.BUSY, ("locked", "busy")),
)


def classify(error: sqlite3.Error | OSError) -> tuple[SQLiteFault, str]:
    """Return what an error means, and its text in lower case, without the path."""
    # Not str(error) of an OSError: it contains the path, which may contain any of these phrases.
    text = str(error.strerror).lower() if isinstance(error, OSError) else str(error).lower()
    for fault, phrases in _PHRASES:
        if any(phrase in text for phrase in phrases):
            return fault, scrub(text)
    return SQLiteFault.OTHER, scrub(text)


_JOURNAL_ADVICE: Final = {
    SQLiteFault.FULL: "the disk is full; free some space, then run again with this journal",
    SQLiteFault.READ_ONLY: "cannot be written; make the file and its folder writable, or name another file",
    SQLiteFault.CANNOT_OPEN: "cannot be opened; name a file in a folder that exists and can be written",
    SQLiteFault.BUSY: "another program is writing to it; stop that program, then run again with this journal",
}


@contextlib.contextmanager
def translate_errors(path: str) -> Any:
    """Turn errors of SQLite and the operating system into a `JournalError` that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        fault, text = classify(error)
    else:
        return
    if fault is SQLiteFault.DAMAGED:
        raise JournalError(damaged_message(path))
    advice = _JOURNAL_ADVICE.get(fault, f"cannot be used ({text}); check the disk, then run again with this journal")
    raise JournalError(f"{path}: {advice}")
