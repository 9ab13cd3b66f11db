"""Finds rows for a number that an earlier row has, so that one person is not texted twice by one input."""

from __future__ import annotations

import bisect
import contextlib
import os
import tempfile
from array import array
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Final

from ..._item_state import LedgerState
from ..._items._deduplication import DedupIndex
from ..._keys import template_values
from ...errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from ._rows import InputRow

_BUCKETS: Final = 1024
_MAX_BUFFERED: Final = 1 << 16


class RepeatCounter:
    """Counts and finds the rows for a number that an earlier row has, among any number of rows.

    Stores 24 bytes per row (hashes of the number and of the row's other values, and the line), of a large input in
    buckets of a temporary file that no other process can open; counting reads one bucket at a time. Memory grows only
    with the number of repeats, by 8 bytes each. The 64-bit hashes are keyed randomly per process: with ten million
    different numbers, a collision occurs in one run of 370,000; it makes a row a repeat, which the check names.
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._buffered = 0
        self._starts: list[array[int]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After a failed write, closing flushes the same data again and fails again.
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def add(self, row: InputRow) -> None:
        """Add a row.

        Raises:
            ConfigurationError: the temporary file cannot be written.
        """
        number = hash(row.to)
        self._buckets[number % _BUCKETS].extend((number, hash(row.template), row.line))
        self._buffered += 1
        if self._buffered == _MAX_BUFFERED:
            self._flush()

    def count(self) -> tuple[int, Sequence[int]]:
        """Return the number of rows that equal the first row of their number, and the lines of those that differ."""
        duplicates, lines = 0, array("q")
        for place, buffered in enumerate(self._buckets):
            values = array("q")
            for starts in self._starts:
                assert self._file is not None  # noqa: S101 - made by the first flush
                size = starts[place + 1] - starts[place]
                values.frombytes(os.pread(self._file.fileno(), size, starts[place]))
            values += buffered
            first: dict[int, int] = {}
            rows = iter(values)
            for number, template, line in zip(rows, rows, rows, strict=True):
                if first.setdefault(number, template) != template:
                    lines.append(line)
                else:
                    duplicates += 1
            duplicates -= len(first)
        return duplicates, array("q", sorted(lines))

    def _flush(self) -> None:
        starts = array("q", [self._starts[-1][-1] if self._starts else 0])
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="bandwidth-mfa-")  # noqa: SIM115 - closed on exit
            for bucket in self._buckets:
                self._file.write(bucket.tobytes())
                starts.append(starts[-1] + len(bucket) * bucket.itemsize)
                del bucket[:]
            self._file.flush()
        except OSError as error:
            raise _temporary_file_error(error) from None
        self._starts.append(starts)
        self._buffered = 0


class RepeatIndex:
    """Finds repeats among the rows of a pipe, which cannot be read twice; the numbers' digests are in a temporary file.

    Call it from one thread, which is not the event loop's.
    """

    def __init__(self) -> None:
        self._index = DedupIndex()

    def is_repeat(self, row: InputRow) -> bool:
        """Return whether an earlier row has the number with another text, scope or number of digits.

        Raises:
            ConfigurationError: the temporary file cannot be written.
        """
        number = blake2b(row.to.encode(), digest_size=16).digest()
        values = blake2b(repr(template_values(row.template)).encode(errors="surrogatepass"), digest_size=8).digest()
        try:
            (state,) = self._index.add([(number, values)])
        except Exception as error:  # noqa: BLE001 - whatever SQLite raises, usually for a full disk
            raise _temporary_file_error(error) from None
        return state is LedgerState.INVALID

    def close(self) -> None:
        """Delete the temporary file."""
        self._index.close()


def is_one_of_lines(lines: Sequence[int], row: InputRow) -> bool:
    """Return whether a row's line is one of the sorted lines."""
    place = bisect.bisect_left(lines, row.line)
    return place < len(lines) and lines[place] == row.line


def _temporary_file_error(error: Exception) -> ConfigurationError:
    where = tempfile.gettempdir() if tempfile.tempdir or os.environ.get("TMPDIR") else "the temporary folder"
    return ConfigurationError(
        f"cannot write in {where}: {getattr(error, 'strerror', None) or error}; name another with TMPDIR"
    )
