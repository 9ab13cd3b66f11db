"""The journal's tables, and the migrations from version to version."""

from __future__ import annotations

from typing import Final

from ..._item_state import JournalState

APPLICATION_ID: Final = 0x424D4641  # "BMFA", in the file's header
PAGE_SIZE: Final = 1024  # digests are spread over all pages of the index; small pages make each write cheap


_SENDING, _ACCEPTED, _UNKNOWN = (
    f"{state:d}" for state in (JournalState.SENDING, JournalState.ACCEPTED, JournalState.UNKNOWN)
)


def seal_sql(
    row_id: str = "id",
    position: str = "position",
    status: str = "status",
    again: str = "again",
    possible_duplicate: str = "possible_duplicate",
) -> str:
    """Return the SQL expression of an item's seal, a checksum of the columns that decide whether it is sent again.

    The modulus is prime and no factor is a multiple of it, so a change of one bit of one column always changes the
    seal. The key is covered by the index of keys: `PRAGMA integrity_check` compares it with the table. The seal is the
    last column: SQLite notices a record of the wrong length only when it reads that one.

    Args:
        row_id: SQL expression of the item's id.
        position: the same of its position.
        status: the same of its status.
        again: the same of its column `again`.
        possible_duplicate: the same of its column `possible_duplicate`.
    """
    return (
        f"({row_id} * 31 + {position} * 37 + {status} * 41 + {again} * 43 + coalesce({possible_duplicate}, 2) * 47)"
        " % 32749"
    )


# MIGRATIONS[n] upgrades version n to n + 1. Entries are only added, never changed.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE item (
            id INTEGER PRIMARY KEY,
            key BLOB NOT NULL UNIQUE,
            position INTEGER NOT NULL,
            status INTEGER NOT NULL,
            payload BLOB,
            provider_id TEXT,
            cause TEXT,
            http_status INTEGER,
            again INTEGER NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            settled_at REAL
        )""",
        """CREATE TABLE second (
            at INTEGER PRIMARY KEY,
            accepted INTEGER NOT NULL,
            rejected INTEGER NOT NULL,
            not_sent INTEGER NOT NULL,
            unknown INTEGER NOT NULL,
            invalid INTEGER NOT NULL,
            throttled INTEGER NOT NULL
        )""",
        "CREATE TABLE latency (bucket INTEGER PRIMARY KEY, count INTEGER NOT NULL)",
        "CREATE TABLE session (id INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, ending TEXT)",
    ),
    (
        # 1 once an attempt may have been delivered that is not known to be: the item is unknown, or is sent again, or
        # was accepted after that. NULL if an older version accepted the item, which did not record it. The checks and
        # the trigger keep every writer from forgetting it. What makes an item unknown here has ended with its process
        # or its call, so no late answer can prove that nothing was sent.
        f"""ALTER TABLE item ADD COLUMN possible_duplicate INTEGER
        CHECK (possible_duplicate IS NOT 1 OR status IN ({_SENDING}, {_ACCEPTED}, {_UNKNOWN}))""",
        f"""UPDATE item SET possible_duplicate = status IN ({_SENDING}, {_UNKNOWN})
        WHERE status <> {_ACCEPTED}""",  # noqa: S608 - our own columns
        f"""ALTER TABLE item ADD COLUMN seal INTEGER NOT NULL DEFAULT -1
        CHECK ((status <> {_UNKNOWN} OR possible_duplicate IS 1) AND (provider_id IS NULL OR status = {_ACCEPTED}))""",
        f"UPDATE item SET seal = {seal_sql()}",  # noqa: S608 - our own columns
        """CREATE TRIGGER item_stays_unknown BEFORE UPDATE OF possible_duplicate ON item
        WHEN OLD.possible_duplicate = 1 AND NEW.possible_duplicate IS NOT 1
        BEGIN SELECT raise(ABORT, 'an item that may have been sent cannot become one that was not'); END""",
        # Number of transactions with results so far, in all sessions; see `CommitMark`.
        "ALTER TABLE session ADD COLUMN commits INTEGER NOT NULL DEFAULT 0",
    ),
)
