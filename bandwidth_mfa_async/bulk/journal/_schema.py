"""The journal's tables, and the migrations from version to version."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x424D4641  # "BMFA", in the file's header
PAGE_SIZE: Final = 1024  # digests are spread over all pages of the index; small pages make each write cheap


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
)
