"""Finds duplicate keys in an input of any length."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

from .._item_state import LedgerState

if TYPE_CHECKING:
    from collections.abc import Sequence


class DedupIndex:
    """The keys of a submission, on disk, since a set of ten million would not fit into memory. Used in threads."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        # A submission that is cancelled leaves the thread that adds to itself, and closes in another.
        self._lock = threading.Lock()

    def add(self, keys: Sequence[tuple[bytes, bytes]]) -> list[LedgerState]:
        """Return pending for a new key, duplicate for a known one, invalid for one that stands for something else."""
        with self._lock:
            return self._add(keys)

    def _add(self, keys: Sequence[tuple[bytes, bytes]]) -> list[LedgerState]:
        if self._db is None:
            # An empty name: a file of SQLite's own, which is deleted when it is closed.
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, payload BLOB) WITHOUT ROWID")
        states: list[LedgerState] = []
        self._db.execute("BEGIN")
        for key, payload in keys:
            if not key:
                states.append(LedgerState.INVALID)
            elif self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, payload)).rowcount:
                states.append(LedgerState.PENDING)
            else:
                (known,) = self._db.execute("SELECT payload FROM seen WHERE key = ?", (key,)).fetchone()
                states.append(LedgerState.DUPLICATE if known == payload else LedgerState.INVALID)
        self._db.execute("COMMIT")
        return states

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
