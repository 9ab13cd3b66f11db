"""Read-only access to a journal's file: it changes nothing, explains bad files, and needs constant memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import frozen

from ..._item_state import JournalState
from ..._redaction import scrub
from ..._sqlite import decode, lock_probe
from ...errors import JournalError
from ..journal._checks import check_schema_version

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from ._timeline import Interval

    LockProbe = Callable[[], bool | None]

_Read = TypeVar("_Read")

# Row ids per query: the rows and their sort by cause fit into SQLite's cache of 2 MB.
_SLICE_ROWS: Final = 10_000
# Maximum number of distinct causes. A journal has a dozen; a tampered file could have one per row.
_MAX_CAUSES: Final = 500
_MAX_ITEMS: Final = 10**10
_EMPTY: Final = "{}: this journal is empty; the first run that uses it creates its content"
_DAMAGED: Final = "{}: this journal is damaged: it contains {}; restore a copy of it before you continue the run"

FailureKey = tuple[int, str | None, int | None, int]
"""State, cause, HTTP status, and whether the next run sends the item again."""


@frozen(kw_only=True)
class Items:
    """Counts of a journal's items.

    Attributes:
        total: number of items.
        taken: one more than the highest position in the input.
        failures: items that are not accepted, by cause.
        slices: for the states sending and unknown, the slices of ids that contain such items, for `positions`.
        possible_duplicates: accepted items of which an earlier attempt may have been delivered too.
        unrecorded: accepted items of an older version, which did not record that.
    """

    total: int
    taken: int
    failures: dict[FailureKey, int]
    slices: dict[int, list[int]]
    possible_duplicates: int
    unrecorded: int


def read_journal(path: Path, read: Callable[[JournalReader], _Read]) -> _Read:
    """Call `read` with a consistent snapshot of a journal; an active run is not disturbed.

    Args:
        path: the journal's file.
        read: runs its queries; called a second time if a run started meanwhile.

    Raises:
        JournalError: the file is missing, not a journal, damaged, or from a newer version of this library.
    """
    try:
        _check_exists(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    # The probe opens the file before SQLite does, and closes it after.
    with lock_probe(str(path)) as is_locked:
        return _read_with_retry(path, is_locked, read)


def _read_with_retry(path: Path, is_locked: LockProbe, read: Callable[[JournalReader], _Read]) -> _Read:
    # Without a write-ahead log no process has the file open. Mode "immutable" then also works in a read-only folder and
    # leaves no -wal and -shm files behind. With a log, SQLite has to coordinate with the writer.
    if not _wal_path(path).exists():
        try:
            result = _read(path, "immutable=1", is_locked, read)
        except JournalError:
            if not _wal_path(path).exists():
                raise
        else:
            if not _wal_path(path).exists():
                return result
    return _read(path, "mode=ro", is_locked, read)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise JournalError(f"{path}: there is no such file; name the journal of a bulk run")
    if not path.is_file():
        raise JournalError(f"{path}: this is not a file; name the journal of a bulk run")
    if path.stat().st_size == 0 and not _wal_path(path).exists():
        raise JournalError(_EMPTY.format(path))


def _wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _read(path: Path, mode: str, is_locked: LockProbe, read: Callable[[JournalReader], _Read]) -> _Read:
    try:
        with _connect(path, mode) as connection:
            version = check_schema_version(connection, str(path))
            if not version:
                raise JournalError(_EMPTY.format(path))
            return read(JournalReader(path, connection, version, is_locked))
    except sqlite3.Error as error:
        raise _translate_error(path, error) from None
    except (AttributeError, TypeError, ValueError, OverflowError):
        # SQLite does not enforce column types: a number column may contain text.
        raise JournalError(_DAMAGED.format(path, "a value that no run writes")) from None


@contextmanager
def _connect(path: Path, mode: str) -> Generator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=5.0)) as connection:
        connection.text_factory = decode
        # One transaction, so that all queries see the same snapshot.
        connection.execute("BEGIN")
        yield connection


def _translate_error(path: Path, error: sqlite3.Error) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return JournalError(f"{path}: is not a journal, nor an SQLite file")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return JournalError(f"{path}: another program has locked the journal; try again when it has ended")
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}:
        return JournalError(
            f"{path}: cannot be opened; make it readable and, if {_wal_path(path).name} exists, its folder writable; "
            "or copy both files to another folder"
        )
    # All other errors mean a truncated or corrupt file; SQLite's text helps those who know SQLite.
    return JournalError(
        f"{path}: this journal is damaged ({scrub(str(error))}); copy it again together with its -wal file, or "
        "restore a copy of it, before you continue the run"
    )


class JournalReader:
    """The queries of a report.

    Args:
        path: the journal's file.
        connection: a connection to it, in a transaction.
        version: the file's format.
        is_locked: returns whether a run holds the file's lock.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, version: int, is_locked: LockProbe) -> None:
        self.path = path
        self._execute = connection.execute
        self._version = version
        self._is_locked = is_locked

    def is_running(self) -> bool | None:
        """Return whether a run uses the journal now; None if that cannot be determined."""
        is_locked = self._is_locked()
        # A run of the version that wrote format 1 holds another lock.
        return None if self._version == 1 and not is_locked else is_locked

    def damaged(self, what: str) -> JournalError:
        """Return the error for a value that no run writes."""
        return JournalError(_DAMAGED.format(self.path, what))

    def meta(self) -> dict[str, str]:
        """Return the facts that the run stored."""
        return dict(self._execute("SELECT name, value FROM meta"))

    def items(self) -> Items:
        """Count all items, and those that are not accepted by cause.

        Accepted items, usually nearly all, are not grouped: their number is the difference.
        """
        (first,) = self._execute("SELECT min(id) FROM item").fetchone()
        (last,) = self._execute("SELECT max(id) FROM item").fetchone()
        items, taken, possible_duplicates, unrecorded = 0, 0, 0, 0
        counts: dict[FailureKey, int] = {}
        slices: dict[int, list[int]] = {JournalState.SENDING: [], JournalState.UNKNOWN: []}
        if first is None:
            first, last = 1, 0
        if last - first > _MAX_ITEMS:
            raise self.damaged("ids that are too far apart")
        recorded = "possible_duplicate" if self._version > 1 else "NULL"
        for before in range(first - 1, last, _SLICE_ROWS):
            bounds = (before, before + _SLICE_ROWS)
            # Not one count(*) of all rows: SQLite would scan the index of keys, which is scattered over the disk.
            number, position = self._execute(
                "SELECT count(*), max(position) FROM item WHERE id > ? AND id <= ?", bounds
            ).fetchone()
            items += number
            taken = max(taken, 1 + (position or 0)) if number else taken
            rows = self._execute(
                f"SELECT status, cause, http_status, again, {recorded}, count(*) FROM item "  # noqa: S608 - our own columns
                f"WHERE id > ? AND id <= ? AND (status <> ? OR {recorded} IS NOT 0) GROUP BY 1, 2, 3, 4, 5",
                (*bounds, JournalState.ACCEPTED),
            )
            for status, cause, http_status, again, possible_duplicate, count in rows:
                if status == JournalState.ACCEPTED:
                    unrecorded += count if possible_duplicate is None else 0
                    possible_duplicates += count if possible_duplicate else 0
                    continue
                key = (status, cause, http_status, again)
                if key not in counts and len(counts) >= _MAX_CAUSES:
                    key = (status, None, None, again)
                counts[key] = counts.get(key, 0) + count
                if status in slices and before not in slices[status][-1:]:
                    slices[status].append(before)
        return Items(
            total=items,
            taken=taken,
            failures=counts,
            slices=slices,
            possible_duplicates=possible_duplicates,
            unrecorded=unrecorded,
        )

    def positions(self, status: int, slices: list[int], limit: int) -> list[int]:
        """Return the positions in the input of the first items in a state.

        Args:
            status: `JournalState.SENDING` or `JournalState.UNKNOWN`.
            slices: the slices that contain such items, from `items`.
            limit: maximum number of positions.
        """
        found: list[int] = []
        for before in slices:
            rows = self._execute(
                "SELECT position FROM item WHERE id > ? AND id <= ? AND status = ? ORDER BY id LIMIT ?",
                (before, before + _SLICE_ROWS, status, limit - len(found)),
            )
            found += [position for (position,) in rows]
            if len(found) >= limit:
                break
        return found

    def sessions(self, limit: int) -> tuple[int, dict[str | None, int], list[tuple[float, float | None, str | None]]]:
        """Return the number of sessions, their number by ending, and the latest ones, oldest first."""
        endings: dict[str | None, int] = dict(
            self._execute("SELECT ending, count(*) FROM session GROUP BY ending LIMIT 20").fetchall()
        )
        latest = self._execute("SELECT started_at, ended_at, ending FROM session ORDER BY id DESC LIMIT ?", (limit,))
        return sum(endings.values()), endings, latest.fetchall()[::-1]

    def active_range(self, start: int | None, stop: int | None) -> tuple[int, int] | None:
        """Return the first and the last second in a range that have results; None if none has."""
        low = -(2**63) if start is None else start
        high = 2**63 - 1 if stop is None else stop - 1
        # Two statements: SQLite looks up a single min or max in the B-tree, but scans the range for both together.
        (first,) = self._execute("SELECT min(at) FROM second WHERE at BETWEEN ? AND ?", (low, high)).fetchone()
        (last,) = self._execute("SELECT max(at) FROM second WHERE at BETWEEN ? AND ?", (low, high)).fetchone()
        return None if first is None else (first, last)

    def totals(self, interval: Interval) -> tuple[int, ...]:
        """Return the results in an interval: accepted, rejected, not sent, unknown, invalid; and the 429s."""
        sums: tuple[Any, ...] = self._execute(
            "SELECT total(accepted), total(rejected), total(not_sent), total(unknown), total(invalid), "
            "total(throttled) FROM second WHERE at >= ? AND at < ?",
            (interval.start, interval.stop),
        ).fetchone()
        return tuple(int(number) for number in sums)

    def latency(self) -> list[tuple[int, int]]:
        """Return the non-empty latency buckets, fastest first."""
        # From below a microsecond to a month; this also bounds the number of rows of a tampered file.
        return self._execute(
            "SELECT bucket, count FROM latency WHERE count > 0 AND bucket BETWEEN -10 AND 130 ORDER BY bucket"
        ).fetchall()
