"""Scans a whole input before anything is sent: counts its rows and estimates how long sending takes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from array import array
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from ..._config import Rate
from ...errors import ConfigurationError
from ...limits import message_weight
from ._rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._rejects import Rejects
    from ._rows import InputRow, RowReader

_BUCKETS: Final = 1024
_MAX_BUFFERED: Final = 1 << 17
_PROGRESS_INTERVAL: Final = 2_000
MAX_SAMPLES: Final = 5


class DuplicateCounter:
    """Counts duplicates among any number of values, in constant memory.

    Stores the 64-bit hash of each value, keyed randomly per process, in buckets of a temporary file that no other
    process can open; counting reads one bucket at a time. With ten million different values, a hash collision occurs in
    one run of 370,000.

    Raises:
        ConfigurationError: the temporary file cannot be written.
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._buffered = 0
        self._starts: list[array[int]] = []
        try:
            self._file = tempfile.TemporaryFile(prefix="bandwidth-mfa-")  # noqa: SIM115 - closed on exit
        except OSError as error:
            raise _temporary_file_error(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After a failed write, closing flushes the same data again and fails again.
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, value: object) -> None:
        """Add a value."""
        digest = hash(value)
        self._buckets[digest % _BUCKETS].append(digest)
        self._buffered += 1
        if self._buffered == _MAX_BUFFERED:
            self._flush()

    def count(self) -> int:
        """Return how many of the values are equal to an earlier one."""
        self._flush()
        duplicates = 0
        for bucket in range(_BUCKETS):
            digests = array("q")
            for starts in self._starts:
                size = starts[bucket + 1] - starts[bucket]
                digests.frombytes(os.pread(self._file.fileno(), size, starts[bucket]))
            duplicates += len(digests) - len(set(digests))
        return duplicates

    def _flush(self) -> None:
        starts = array("q", [self._starts[-1][-1] if self._starts else 0])
        try:
            for bucket in self._buckets:
                self._file.write(bucket.tobytes())
                starts.append(starts[-1] + len(bucket) * bucket.itemsize)
                del bucket[:]
            self._file.flush()
        except OSError as error:
            raise _temporary_file_error(error) from None
        self._starts.append(starts)
        self._buffered = 0


def _temporary_file_error(error: OSError) -> ConfigurationError:
    where = tempfile.gettempdir() if tempfile.tempdir or os.environ.get("TMPDIR") else "the temporary folder"
    return ConfigurationError(f"cannot write in {where}: {error.strerror or error}; name another with TMPDIR")


@define
class ScanResult:
    """The contents of an input.

    Attributes:
        rows: the number of rows.
        valid: rows that can be sent, duplicates included.
        bad: rows that cannot be sent.
        duplicates: valid rows equal to an earlier one; None if not counted.
        weight: what the valid rows count against the account's rate: segments of texts, or calls.
        lightest: the smallest weight of a valid row.
        heaviest: the largest weight of a valid row.
        samples: the first few bad rows.
        ignored: columns that are not used.
    """

    rows: int = 0
    valid: int = 0
    bad: int = 0
    duplicates: int | None = None
    weight: int = 0
    lightest: int = 0
    heaviest: int = 0
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])

    @property
    def sendable_weight(self) -> float:
        """The weight without duplicates, which are sent once."""
        return self.weight * (self.valid - (self.duplicates or 0)) / self.valid if self.valid else 0.0


def scan(
    reader: RowReader,
    *,
    channel: str,
    duplicates: DuplicateCounter | None = None,
    rejects: Rejects | None = None,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ScanResult:
    """Read, check and count all rows.

    Args:
        reader: the rows.
        channel: ``"messaging"``, where a text counts by its segments, or ``"voice"``.
        duplicates: counts the duplicate rows.
        rejects: receives the bad rows; started at the first row, since the columns are not known before.
        progress: called with the number of rows every 2,000 rows and at the end.

    Raises:
        InputFileError: the file as a whole cannot be sent.
        ConfigurationError: the temporary file cannot be written.
        RejectsFileError: the rejects file cannot be written.
    """
    result = ScanResult()
    base: object = None
    for row in reader:
        result.rows += 1
        if result.rows == 1 and rejects is not None:
            rejects.start(reader.header)
        if result.rows % _PROGRESS_INTERVAL == 0:
            progress(result.rows)
        if isinstance(row, BadRow):
            result.bad += 1
            if len(result.samples) < MAX_SAMPLES:
                result.samples.append(row)
            if rejects is not None:
                rejects.add(row.line, row.reason, row.cells)
            continue
        result.valid += 1
        weight = 1 if channel == "voice" else _weight(row)
        result.weight += weight
        result.heaviest = max(result.heaviest, weight)
        result.lightest = min(result.lightest or weight, weight)
        if duplicates is not None:
            base = base or row.template
            duplicates.add(row.to if row.template is base else (row.to, row.template))
    progress(result.rows)
    result.duplicates = None if duplicates is None else duplicates.count()
    result.ignored = reader.ignored
    return result


def _weight(row: InputRow) -> int:
    template = row.template
    return message_weight(template.message, template.scope, template.digits, None)


@define
class DefaultRate:
    """The rate of an account without an agreement of its own.

    Attributes:
        rate: texts or calls a second.
        source: the documentation of the rate.
    """

    rate: Rate
    source: str


DEFAULT_RATES: Final = {
    "messaging": DefaultRate(
        Rate(1), "Bandwidth's default, https://support.bandwidth.com/hc/en-us/articles/360014169214"
    ),
    "voice": DefaultRate(Rate(5), "Bandwidth's default, https://dev.bandwidth.com/docs/voice/rateLimits"),
}


def scan_document(scan: ScanResult, channel: str, rate: Rate | None) -> dict[str, Any]:
    """Return the JSON document of a scan."""
    used, source = (rate, "--rate") if rate else (DEFAULT_RATES[channel].rate, DEFAULT_RATES[channel].source)
    return {
        "rows": scan.rows,
        "valid": scan.valid,
        "bad": scan.bad,
        "duplicates": scan.duplicates,
        ("calls" if channel == "voice" else "segments"): scan.weight,
        "rate_per_second": used.per_second,
        "rate_source": source,
        "seconds": round(scan.sendable_weight / used.per_second, 1),
        "ignored_columns": scan.ignored,
    }
