"""Files that a command writes: never one that it lives on, and a page whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def journal_files(journal: str) -> list[str]:
    """Return the names of a journal and of what SQLite keeps beside it: what is written there damages it."""
    return [os.path.realpath(journal) + ending for ending in ("", "-wal", "-shm", "-lock")]


def is_one_of(path: str, files: Iterable[str]) -> bool:
    """Return whether a file is one of others under any name: a relative one, a link, or one that is not there yet."""
    own = os.path.realpath(path)
    return any(own == os.path.realpath(file) or _same(path, file) for file in files)


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121 - names as given
    except OSError:
        return False
