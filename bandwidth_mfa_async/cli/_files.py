"""Overwrite guards for the files that a command writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def journal_files(journal: str) -> list[str]:
    """Return the paths of a journal and of the files that SQLite keeps beside it; overwriting one damages it."""
    return [os.path.realpath(journal) + ending for ending in ("", "-wal", "-shm", "-mark")]


def is_one_of(path: str, files: Iterable[str]) -> bool:
    """Return whether a path names one of the files, also as a relative path, a link, or a file not created yet."""
    real_path = os.path.realpath(path)
    return any(real_path == os.path.realpath(file) or _same(path, file) for file in files)


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121 - paths as given
    except OSError:
        return False
