"""Detection of duplicate keys in an input of any length."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING

from .._item_state import LedgerState

if TYPE_CHECKING:
    from collections.abc import Sequence


class DedupIndex:
    """The keys of a submission, in a temporary file: a set of ten million keys would not fit into memory.

    Call `add` and `close` from worker threads, never from the event loop.
    """

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._closed = False
        # After a cancelled submission one thread may still be adding while another one closes.
        self._lock = threading.Lock()

    def add(self, keys: Sequence[tuple[bytes, bytes]]) -> list[LedgerState]:
        """Return pending for a new key, duplicate for a known one, invalid for an empty key or another payload."""
        with self._lock:
            if self._closed:
                raise ValueError("the index is closed")
            return self._add(keys)

    def _add(self, keys: Sequence[tuple[bytes, bytes]]) -> list[LedgerState]:
        if self._db is None:
            # An empty name makes a temporary file that SQLite deletes on close.
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
        """Close and delete the temporary file."""
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()

    async def aclose(self) -> None:
        """Close in a worker thread, also if the caller is cancelled meanwhile."""
        # Unshielded, a cancellation would prevent a call for which no thread was free yet.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.close))
