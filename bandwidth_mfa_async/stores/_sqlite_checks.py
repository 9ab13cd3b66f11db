"""Checks of a store's files: where they are, that they are undamaged, and that they still are the files in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from .._sqlite import count_wal_damage, decode, is_healthy
from ..errors import JournalError, StoreError

_NETWORK: Final = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("ocfs2", "orangefs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs"),
}


def damaged(path: str, what: str) -> str:
    """Return what to do about a damaged store."""
    return (
        f"{path}: the store is damaged ({what}); stop all processes that use it, then restore a copy of it together "
        "with the files beside it, or name a new file. Texts whose keys the copy does not have could be sent again"
    )


def check_file(path: str, application_id: int) -> None:
    """Check a store that no other process uses. Nothing is changed: SQLite would cut the log at the first bad frame.

    Args:
        path: the file, without symbolic links, locked by this process for itself.
        application_id: that of a store; another program's file is not checked.

    Raises:
        StoreError: the file or its write-ahead log is damaged.
    """
    try:
        damage = count_wal_damage(path)
    except JournalError:
        raise StoreError(damaged(path, "the header of its -wal file")) from None
    if damage:
        raise StoreError(damaged(path, "its -wal file has bad frames before good ones"))
    if not os.stat(path).st_size:  # noqa: PTH116 - a str all the way to SQLite
        if damage is not None:
            raise StoreError(damaged(path, "it is missing or empty, and its -wal file is not"))
        return
    mode = "immutable=1" if damage is None else "mode=ro"
    address = f"{Path(path).absolute().as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=5)) as db:
        db.text_factory = decode
        if db.execute("PRAGMA application_id").fetchone()[0] == application_id and not is_healthy(db):
            raise StoreError(damaged(path, "its pages or indexes"))


class Places:
    """The files that are in use, by name: one that was replaced or removed is written to, and no one reads it."""

    def __init__(self) -> None:
        self._inodes: dict[str, tuple[int, int] | None] = {}

    def record(self, name: str, path: str) -> None:
        """Record the files of an open store.

        Args:
            name: the absolute name that the user gave.
            path: the file, without symbolic links.
        """
        found = {each: _inode(each) for each in (name, f"{path}-wal", f"{path}-shm")}
        self._inodes = {each: inode for each, inode in found.items() if inode is not None}

    def check(self, path: str) -> None:
        """Check that the names still lead to the files.

        Raises:
            StoreError: one was replaced or removed.
        """
        for each, inode in self._inodes.items():
            if _inode(each) != inode:
                raise StoreError(
                    f"{path}: the store, or the -wal or -shm file beside it, was replaced or removed while it was in "
                    "use; put them back, or restart the processes that use it. Texts whose keys are lost could be "
                    "sent again"
                )


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a str all the way to SQLite
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def check_folder(path: str, folder: str) -> None:
    """Check that a folder is on a local disk.

    Raises:
        StoreError: it is on a network or FUSE mount.
    """
    kind = network_mount(folder)
    if kind is not None:
        raise StoreError(
            f"{path}: the folder is on a {kind} mount, whose locks SQLite cannot trust: two processes could "
            "send one text twice. Use a local disk or a RedisStore, or pass allow_network_mount=True"
        )


def network_mount(folder: str) -> str | None:
    """Return the kind of the network or FUSE mount that a folder is on; None if it is local or cannot be determined."""
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116 - a str all the way to SQLite
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no user's path
            lines = file.readlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            kind = right.split()[0]
            return kind if kind in _NETWORK or kind.startswith("fuse") else None
    return None
