"""A look through a whole input before anything is sent: what is in it, and how long sending it will take."""

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
_HELD: Final = 1 << 17
_REPORT_EVERY: Final = 2_000
SAMPLES: Final = 5


class DuplicateCounter:
    """Counts what was added before, among any number of additions, in constant memory.

    Additions are 64-bit hashes, keyed by chance for each process. They are dealt out over buckets in a temporary file
    that no other process can open; only when they are counted is one bucket after another held in memory. Among ten
    million different ones, two would share a hash in one run of 370,000.

    Raises:
        ConfigurationError: no temporary file can be written.
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._held = 0
        self._starts: list[array[int]] = []
        try:
            self._file = tempfile.TemporaryFile(prefix="bandwidth-mfa-")  # noqa: SIM115 - closed on exit
        except OSError as error:
            raise _no_room(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What a full disk would not take is written once more, and refused once more.
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, what: object) -> None:
        """Take note of one."""
        mark = hash(what)
        self._buckets[mark % _BUCKETS].append(mark)
        self._held += 1
        if self._held == _HELD:
            self._flush()

    def count(self) -> int:
        """Return how many were added when an equal one had been already."""
        self._flush()
        repeated = 0
        for bucket in range(_BUCKETS):
            marks = array("q")
            for starts in self._starts:
                size = starts[bucket + 1] - starts[bucket]
                marks.frombytes(os.pread(self._file.fileno(), size, starts[bucket]))
            repeated += len(marks) - len(set(marks))
        return repeated

    def _flush(self) -> None:
        starts = array("q", [self._starts[-1][-1] if self._starts else 0])
        try:
            for bucket in self._buckets:
                self._file.write(bucket.tobytes())
                starts.append(starts[-1] + len(bucket) * bucket.itemsize)
                del bucket[:]
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from None
        self._starts.append(starts)
        self._held = 0


def _no_room(error: OSError) -> ConfigurationError:
    where = tempfile.gettempdir() if tempfile.tempdir or os.environ.get("TMPDIR") else "the temporary folder"
    return ConfigurationError(f"cannot write in {where}: {error.strerror or error}; name another with TMPDIR")


@define
class ScanResult:
    """What is in an input.

    Attributes:
        rows: all of them.
        valid: those that can be sent, repeats included.
        bad: those that cannot.
        repeats: valid ones that ask for the same as one before; None where nobody looked.
        weight: what the valid ones count against the account's rate: segments of texts, or calls.
        lightest: the least that one counts.
        heaviest: the most that one counts.
        samples: the first few that cannot.
        ignored: columns that nothing is done with.
    """

    rows: int = 0
    valid: int = 0
    bad: int = 0
    repeats: int | None = None
    weight: int = 0
    lightest: int = 0
    heaviest: int = 0
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])

    @property
    def sendable_weight(self) -> float:
        """What sending will count: the weight without the repeats, which are sent once."""
        return self.weight * (self.valid - (self.repeats or 0)) / self.valid if self.valid else 0.0


def scan(
    reader: RowReader,
    *,
    channel: str,
    repeats: DuplicateCounter | None = None,
    rejects: Rejects | None = None,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ScanResult:
    """Read all rows, check each, and count.

    Args:
        reader: the rows.
        channel: ``"messaging"``, where a text counts by its segments, or ``"voice"``.
        repeats: counts the rows that repeat another.
        rejects: takes the bad rows; begun with the first row, since no columns are known before.
        progress: told of the number of rows now and then.

    Raises:
        InputFileError: the file as a whole cannot be sent.
        ConfigurationError: no temporary file can be written.
        RejectsFileError: the rejects cannot be written.
    """
    found = ScanResult()
    base: object = None
    for row in reader:
        found.rows += 1
        if found.rows == 1 and rejects is not None:
            rejects.start(reader.header)
        if found.rows % _REPORT_EVERY == 0:
            progress(found.rows)
        if isinstance(row, BadRow):
            found.bad += 1
            if len(found.samples) < SAMPLES:
                found.samples.append(row)
            if rejects is not None:
                rejects.add(row.line, row.reason, row.cells)
            continue
        found.valid += 1
        weight = 1 if channel == "voice" else _weight(row)
        found.weight += weight
        found.heaviest = max(found.heaviest, weight)
        found.lightest = min(found.lightest or weight, weight)
        if repeats is not None:
            base = base or row.template
            repeats.add(row.to if row.template is base else (row.to, row.template))
    progress(found.rows)
    found.repeats = None if repeats is None else repeats.count()
    found.ignored = reader.ignored
    return found


def _weight(row: InputRow) -> int:
    template = row.template
    return message_weight(template.message, template.scope, template.digits, None)


@define
class DefaultRate:
    """What Bandwidth gives an account that has agreed on nothing else.

    Attributes:
        rate: so many a second.
        source: who says so.
    """

    rate: Rate
    source: str


DEFAULT_RATES: Final = {
    "messaging": DefaultRate(
        Rate(1), "Bandwidth's default, https://support.bandwidth.com/hc/en-us/articles/360014169214"
    ),
    "voice": DefaultRate(Rate(5), "Bandwidth's default, https://dev.bandwidth.com/docs/voice/rateLimits"),
}


def document_of(found: ScanResult, channel: str, rate: Rate | None) -> dict[str, Any]:
    """Describe what was found, for a script."""
    used, source = (rate, "--rate") if rate else (DEFAULT_RATES[channel].rate, DEFAULT_RATES[channel].source)
    return {
        "rows": found.rows,
        "valid": found.valid,
        "bad": found.bad,
        "duplicates": found.repeats,
        ("calls" if channel == "voice" else "segments"): found.weight,
        "rate_per_second": used.per_second,
        "rate_source": source,
        "seconds": round(found.sendable_weight / used.per_second, 1),
        "ignored_columns": found.ignored,
    }
