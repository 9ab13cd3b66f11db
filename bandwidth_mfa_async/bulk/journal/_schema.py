"""The journal's tables, version by version, and the words of its statuses. No I/O."""

from __future__ import annotations

import enum
from typing import Final

from ...errors import Delivery

APPLICATION_ID: Final = 0x424D4641  # "BMFA", in the file's header
PAGE_SIZE: Final = 1024  # a digest lands on any page of the index: small pages make that cheap


class Status(enum.IntEnum):
    """What the journal knows of an item."""

    PENDING = 0
    """Taken from the input; no attempt is under way, and none so far can have reached a person."""
    SENDING = 1
    """Its intent is on disk: an attempt may be under way."""
    ACCEPTED = 2
    REJECTED = 3
    NOT_SENT = 4
    UNKNOWN = 5
    INVALID = 6


STATUS_OF: Final = {
    Delivery.ACCEPTED: Status.ACCEPTED,
    Delivery.REJECTED: Status.REJECTED,
    Delivery.NOT_SENT: Status.NOT_SENT,
    Delivery.UNKNOWN: Status.UNKNOWN,
    Delivery.INVALID: Status.INVALID,
}
DELIVERY_OF: Final = {status: delivery for delivery, status in STATUS_OF.items()}
INTERRUPTED: Final = "InterruptedRun"
"""The cause of an unknown item that was under way when its run was killed."""

# Each entry leads from the version that is its index to the next one. Entries are never changed, only added.
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
