"""Shared SQLite mechanisms: private file creation, transactions, health checks and error translation."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Any

from ._redaction import scrub
from .errors import JournalError


def check_health(db: sqlite3.Connection, path: str) -> None:
    """Raise a `JournalError` if the file is damaged: an item whose row is lost would be sent again."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise JournalError(_damaged_message(path))


def _damaged_message(path: str) -> str:
    return (
        f"{path}: this journal is damaged, or not a journal; restore a copy of it, or recover it with sqlite3's "
        ".recover: with a new journal the same input would be sent to every number again"
    )


def create_private_file(path: str) -> bool:
    """Create the file, readable by its owner only; return False if it exists already."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Any:
    """Run the body in one write transaction: commit it, or roll it back on any exception."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translate_errors(path: str) -> Any:
    """Turn errors of SQLite and the operating system into a `JournalError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error).lower()
    except OSError as error:
        # Not str(error): it contains the path, which may contain any of the words below.
        text = str(error.strerror).lower()
    else:
        return
    if "full" in text or "no space" in text:
        advice = "the disk is full; free some space, then run again with this journal"
    elif "readonly" in text or "read-only" in text or "permission" in text:
        advice = "cannot be written; make the file and its folder writable, or name another file"
    elif "unable to open" in text or "no such file" in text or "directory" in text:
        advice = "cannot be opened; name a file in a folder that exists and can be written"
    elif "malformed" in text or "not a database" in text:
        raise JournalError(_damaged_message(path))
    elif "locked" in text or "busy" in text:
        advice = "another program is writing to it; stop that program, then run again with this journal"
    else:
        advice = f"cannot be used ({scrub(text)}); check the disk, then run again with this journal"
    raise JournalError(f"{path}: {advice}")
