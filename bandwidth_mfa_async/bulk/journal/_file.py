"""Synchronous access to a journal's file, for the journal's thread: open, check, write batches in transactions."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from attrs import Factory, define

from ..._item_state import INTERRUPTED_RUN, JournalState
from ..._sqlite import FileLock, decode, transaction, translate_errors
from ..._version import __version__
from ...errors import JournalError
from . import _schema
from ._checks import CommitMark, check_journal, former_lock
from ._schema import PAGE_SIZE, seal_sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._outcome import Ending

_MIN_SQLITE: Final = (3, 33)  # UPDATE FROM
INPUT_ITEMS: Final = "input_items"
"""Name of the fact with the number of items in the checked input."""
_COUNTS: Final = ("accepted", "rejected", "not_sent", "unknown", "invalid", "throttled")

# A batch is one row inserted into a view whose trigger does the work, so it is one statement and one transaction.
# Python releases the GIL around each statement, and a busy event loop is slow to release it again: a batch of nine
# statements took three times as long as their work. The `accepted` entries have the fixed columns of `Batch.accept`.
_PENDING, _SENDING, _ACCEPTED, _UNKNOWN = (
    f"{state:d}" for state in (JournalState.PENDING, JournalState.SENDING, JournalState.ACCEPTED, JournalState.UNKNOWN)
)
# Unknown is sticky: the checks of the table refuse what these expressions avoid.
_STAYS_UNKNOWN: Final = f"(item.possible_duplicate IS 1 AND json_extract(ended.value, '$[1]') <> {_ACCEPTED})"
_ENDED_AS: Final = f"iif({_STAYS_UNKNOWN}, {_UNKNOWN}, json_extract(ended.value, '$[1]'))"
_ENDED_AGAIN: Final = "json_extract(ended.value, '$[5]')"
_ENDED_TWICE: Final = (
    f"(item.possible_duplicate IS 1 OR json_extract(ended.value, '$[1]') = {_UNKNOWN} "
    "OR json_extract(ended.value, '$[8]'))"
)
_BATCH_VIEW: Final = """
CREATE TEMP VIEW batch (accepted, ended, begun, first, keys, positions, payloads, seconds, latencies) AS
SELECT 0, 0, 0, 0, 0, 0, 0, 0, 0
"""
_BATCH_TRIGGER: Final = f"""
CREATE TEMP TRIGGER write_batch INSTEAD OF INSERT ON batch BEGIN
    UPDATE item SET
        status = {_ACCEPTED},
        provider_id = substr(accepted.value, 43),
        cause = NULL,
        http_status = NULL,
        again = 0,
        attempts = attempts + CAST(substr(accepted.value, 17, 9) AS INTEGER),
        settled_at = CAST(substr(accepted.value, 26, 17) AS INTEGER) / 1e6,
        seal = {seal_sql("item.id", status=_ACCEPTED, again="0")}
    FROM json_each(NEW.accepted) AS accepted WHERE item.id = CAST(substr(accepted.value, 1, 16) AS INTEGER);
    UPDATE item SET
        status = {_ENDED_AS},
        provider_id = json_extract(ended.value, '$[2]'),
        cause = json_extract(ended.value, '$[3]'),
        http_status = json_extract(ended.value, '$[4]'),
        again = {_ENDED_AGAIN},
        attempts = attempts + json_extract(ended.value, '$[6]'),
        settled_at = json_extract(ended.value, '$[7]'),
        possible_duplicate = {_ENDED_TWICE},
        seal = {seal_sql("item.id", status=_ENDED_AS, again=_ENDED_AGAIN, possible_duplicate=_ENDED_TWICE)}
    FROM json_each(NEW.ended) AS ended
    WHERE item.id = json_extract(ended.value, '$[0]') AND item.status <> {_ACCEPTED};
    UPDATE item SET status = {_SENDING}, seal = {seal_sql(status=_SENDING)}
    WHERE id IN (SELECT value FROM json_each(NEW.begun));
    INSERT INTO second (at, {", ".join(_COUNTS)})
    SELECT {", ".join(f"json_extract(value, '$[{place}]')" for place in range(1 + len(_COUNTS)))}
    FROM json_each(NEW.seconds) WHERE true
    ON CONFLICT (at) DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTS)};
    INSERT INTO latency (bucket, count)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.latencies) WHERE true
    ON CONFLICT (bucket) DO UPDATE SET count = count + excluded.count;
    INSERT INTO item (id, key, position, status, payload, possible_duplicate, seal)
    SELECT NEW.first + key, substr(NEW.keys, 16 * key + 1, 16), value, {_PENDING},
        nullif(substr(NEW.payloads, 8 * key + 1, 8), zeroblob(8)),
        0, {seal_sql("(NEW.first + key)", "value", _PENDING, "0", "0")}
    FROM json_each(NEW.positions) WHERE true
    ON CONFLICT (key) DO NOTHING;
    UPDATE session SET commits = commits + 1 WHERE id = THIS_SESSION;
END
"""  # noqa: S608 - our own columns
_INSERT_BATCH: Final = "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# One result row for any number of items, for the same reason.
_LOOK_UP: Final = """
SELECT json_group_array(json_array(
    place, item.id, item.status, nullif(hex(item.payload), ''), provider_id, again, attempts, settled_at >= :since,
    possible_duplicate
))
FROM (SELECT key AS place FROM json_each(:positions))
CROSS JOIN item ON item.key = substr(:keys, 16 * place + 1, 16)
"""
# Cap settled_at: if the clock was set back, results of an earlier run must not look like results of this session.
_MARK_INTERRUPTED: Final = f"""
UPDATE item SET
    cause = iif(status = {_SENDING}, :cause, cause),
    status = {_UNKNOWN},
    settled_at = min(settled_at, :now - 1),
    possible_duplicate = 1,
    seal = {seal_sql(status=_UNKNOWN, possible_duplicate="1")}
WHERE status = {_SENDING} OR (status = {_UNKNOWN} AND settled_at >= :now)
"""  # noqa: S608 - our own columns


# The default key of a number stands for the number; the table maps it to the keys of its items with another text. It is
# made for the first such item, because most runs have none.
_NUMBER_KEYS: Final = (
    "CREATE TABLE IF NOT EXISTS number_key (number BLOB, key BLOB, PRIMARY KEY (number, key)) WITHOUT ROWID"
)
_MAYBE_SENT: Final = f"IN ({JournalState.SENDING:d}, {JournalState.ACCEPTED:d}, {JournalState.UNKNOWN:d})"
_HAS_OTHER_TEXT: Final = f"""
SELECT EXISTS (SELECT 1 FROM item WHERE key = :number AND key <> :key AND status {_MAYBE_SENT})
OR EXISTS (
    SELECT 1 FROM number_key CROSS JOIN item ON item.key = number_key.key
    WHERE number_key.number = :number AND number_key.key <> :key AND item.status {_MAYBE_SENT}
)
"""  # noqa: S608 - our own states


class JournalRow(NamedTuple):
    """The state of an item in the journal."""

    id: int
    status: JournalState
    payload: str | None = None
    provider_id: str | None = None
    is_retryable_next_run: bool = False
    attempts: int = 0
    settled_this_session: bool = False
    possible_duplicate: bool | None = False

    @property
    def is_final(self) -> bool:
        """Whether this run must not send the item: accepted, rejected for good, or unknown since this session."""
        if self.status is JournalState.REJECTED:
            return not self.is_retryable_next_run
        return self.status is JournalState.ACCEPTED or (
            self.status is JournalState.UNKNOWN and self.settled_this_session
        )


def _parse_row(row_id: int, status: int, payload: str | None, provider_id: str | None, *facts: Any) -> JournalRow:
    again, attempts, this_session, possible_duplicate = facts
    flag = None if possible_duplicate is None else bool(possible_duplicate)
    state = JournalState(status)
    return JournalRow(row_id, state, payload, provider_id, bool(again), attempts, bool(this_session), flag)


@define
class Batch:
    """Changes written in one transaction, in this order: results, intents, new items."""

    accepted: list[str] = Factory(list[str])
    settled: dict[int, tuple[Any, ...]] = Factory(dict[int, tuple[Any, ...]])
    intents: dict[int, None] = Factory(dict[int, None])
    keys: bytearray = Factory(bytearray)
    positions: list[int] = Factory(list[int])
    payloads: bytearray = Factory(bytearray)
    seconds: dict[int, dict[str, int]] = Factory(dict[int, dict[str, int]])
    latencies: dict[int, int] = Factory(dict[int, int])
    # Number of results, intents and new items.
    size: int = 0

    def accept(self, row_id: int, provider_id: str, attempts: int, at: float) -> None:
        """Add the result of an accepted item; it is a possible duplicate if the item was unknown before.

        This is the most frequent change, so it is a string with fixed columns, which SQLite parses faster than JSON.
        """
        self.accepted.append(f"{row_id:016}{attempts:09}{round(at * 1e6):017}{provider_id}")


class JournalFile:
    """The SQLite file of a journal.

    Args:
        path: path of the file.
        run: the run's name.
    """

    def __init__(self, path: str, run: str = "") -> None:
        self.path: str = path
        self._run = run
        self._db: sqlite3.Connection | None = None
        self._lock: FileLock | None = None
        self._mark = CommitMark(path)
        self._commits = 0
        self._session_id = 0
        self.opened_at: float = 0.0
        self._next_id = 1
        self._failure: JournalError | None = None
        self.has_number_keys: bool = False
        """Whether the journal has items whose text is not the template's, each with its number's default key."""

    def open(self, now: float) -> None:
        """Open or create the file; items that were in flight when an earlier run was killed become unknown.

        Args:
            now: the time in Unix seconds.

        Raises:
            JournalError: the file cannot be opened, is in use by another process, or is not a journal.
        """
        if sqlite3.sqlite_version_info < _MIN_SQLITE:
            wanted = ".".join(map(str, _MIN_SQLITE))
            raise JournalError(f"a journal needs SQLite {wanted} or newer; this Python has {sqlite3.sqlite_version}")
        self._failure = None
        try:
            with translate_errors(self.path):
                # Resolve symbolic links, so that SQLite and the checks use the same names.
                path = os.path.realpath(self.path)
                self._lock = FileLock(path)
                self._lock.acquire()
                self._mark = CommitMark(path)
                version = check_journal(path)
                self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
                self._db.text_factory = decode
                with former_lock(path, version):
                    self._prepare(self._db, now, version)
        except BaseException:
            self._close_connections()
            raise

    def _prepare(self, db: sqlite3.Connection, now: float, version: int) -> None:
        if not version:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"{self.path}: this file system does not support SQLite's WAL mode; use a local disk")
        # FULL: a commit survives a power cut, not just a kill.
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {4_000_000 // PAGE_SIZE}")
        db.execute(
            "PRAGMA cache_size = -2000"
        )  # KiB; a larger cache is not faster, because the system caches pages too
        # Before the session begins: with a session but without a mark, the journal would look incomplete.
        self._mark.write(0)
        with transaction(db):
            for step in _schema.MIGRATIONS[version:]:
                for statement in step:
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(_schema.MIGRATIONS)}")
            facts = {"created_at": repr(now), "made_by": __version__}
            db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", facts.items())
            db.execute(_MARK_INTERRUPTED, {"now": now, "cause": INTERRUPTED_RUN})
            self.opened_at = now
            (before,) = db.execute("SELECT coalesce(max(commits), 0) FROM session").fetchone()
            self._commits = before + 1
            session = "INSERT INTO session (started_at, commits) VALUES (?, ?)"
            self._session_id = db.execute(session, (now, self._commits)).lastrowid or 0
            (self._next_id,) = db.execute("SELECT 1 + coalesce(max(id), 0) FROM item").fetchone()
        self._mark.write(self._commits)
        # From now on the file itself says that a session began, so a copy without its log is noticed.
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        db.execute(_BATCH_VIEW)
        db.execute(_BATCH_TRIGGER.replace("THIS_SESSION", str(self._session_id)))
        self.has_number_keys = bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'number_key'").fetchone())

    def bind(self, facts: Mapping[str, str]) -> None:
        """Store facts that must be the same in every run, or compare them with the stored ones.

        Args:
            facts: names, such as ``template.message``, and values or digests.

        Raises:
            JournalError: the file was made with other values; the message names the facts.
        """
        db = self._require_open()
        with translate_errors(self.path), transaction(db):
            db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", facts.items())
            stored = dict(db.execute("SELECT name, value FROM meta"))
        different = [name.removeprefix("template.") for name, value in facts.items() if stored[name] != value]
        if different:
            raise JournalError(
                f"{self.path}: this journal belongs to a run with another {', '.join(different)}; "
                "use the values of that run, or another journal file"
            )

    def claim_numbers(self, pairs: Sequence[tuple[bytes, bytes]], *, allow_repeats: bool) -> list[bool]:
        """Return for each number whether another of its texts was sent, or may have been; else record its new key.

        Args:
            pairs: the digests of the number's default key and of the item's key.
            allow_repeats: whether to record the key in any case.

        Raises:
            JournalError: the journal cannot be written.
        """
        db = self._require_open()
        results: list[bool] = []
        with translate_errors(self.path), transaction(db):
            db.execute(_NUMBER_KEYS)
            for number, key in pairs:
                (sent,) = db.execute(_HAS_OTHER_TEXT, {"number": number, "key": key}).fetchone()
                results.append(bool(sent) and not allow_repeats)
                if number != key and not results[-1]:
                    db.execute("INSERT OR IGNORE INTO number_key VALUES (?, ?)", (number, key))
        self.has_number_keys = True
        return results

    def record_input(self, items: int) -> None:
        """Store the number of items in the checked input."""
        with translate_errors(self.path), transaction(self._require_open()) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (INPUT_ITEMS, str(items)))

    def apply(self, batch: Batch) -> Sequence[int | JournalRow]:
        """Write a batch, and return the row of each item that it adds, in the order of the batch.

        If all items are new, as in most runs, the result is just the range of their row ids.

        Raises:
            JournalError: nothing of the batch was written. All later batches fail too, because without this one the
                file would be inconsistent.
        """
        if self._failure is not None:
            raise JournalError(*self._failure.args)
        try:
            with translate_errors(self.path):
                return self._apply(self._require_open(), batch)
        except JournalError as error:
            self._failure = error
            raise

    def _apply(self, db: sqlite3.Connection, batch: Batch) -> Sequence[int | JournalRow]:
        number = len(batch.positions)
        first = self._next_id
        keys, positions = bytes(batch.keys), json.dumps(batch.positions)
        values = (
            json.dumps(batch.accepted),
            json.dumps([(row_id, *rest) for row_id, rest in batch.settled.items()]),
            json.dumps(list(batch.intents)),
            first,
            keys,
            positions,
            bytes(batch.payloads),
            json.dumps([(at, *(counts.get(name, 0) for name in _COUNTS)) for at, counts in batch.seconds.items()]),
            json.dumps(list(batch.latencies.items())),
        )
        other_changes = sum(map(len, (batch.accepted, batch.settled, batch.intents, batch.seconds, batch.latencies)))
        before = db.total_changes
        db.execute(_INSERT_BATCH, values)
        self._commits += 1
        self._mark.write(self._commits)
        self._next_id = first + number
        if db.total_changes - before == other_changes + number + 1:
            return range(first, first + number)
        lookup = {"keys": keys, "positions": positions, "since": self.opened_at}
        found = json.loads(db.execute(_LOOK_UP, lookup).fetchone()[0])
        rows = [(place, _parse_row(*columns)) for place, *columns in found]
        return [row for _, row in sorted(rows)]

    def counts(self) -> dict[str, int]:
        """Return the number of items in each state."""
        with translate_errors(self.path):
            rows = self._require_open().execute("SELECT status, count(*) FROM item GROUP BY status").fetchall()
        return {JournalState(status).name.lower(): count for status, count in rows}

    def close(self, ending: Ending, now: float) -> None:
        """Record when and how the run ended, and close the file."""
        has_ended = False
        try:
            if self._db is not None:
                with translate_errors(self.path), transaction(self._db):
                    self._db.execute(
                        "UPDATE session SET ended_at = ?, ending = ? WHERE id = ?",
                        (now, ending, self._session_id),
                    )
                has_ended = True
        finally:
            self._close_connections(has_ended=has_ended)

    def _require_open(self) -> sqlite3.Connection:
        assert self._db is not None  # noqa: S101 - used only while open
        return self._db

    def _close_connections(self, *, has_ended: bool = False) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._mark.close()
        # The log remains if another process is reading.
        if has_ended and not os.path.exists(f"{os.path.realpath(self.path)}-wal"):  # noqa: PTH110
            self._mark.remove()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
