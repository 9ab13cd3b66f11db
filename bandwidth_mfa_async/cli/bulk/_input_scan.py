"""Scans a whole input before anything is sent: counts its rows and estimates how long sending takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from ..._config import Rate
from ...limits import message_weight
from ._rows import REPEATED, BadRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._rejects import Rejects
    from ._repeats import RepeatCounter
    from ._rows import InputRow, RowReader

_PROGRESS_INTERVAL: Final = 2_000
MAX_SAMPLES: Final = 5


@define
class ScanResult:
    """The contents of an input.

    Attributes:
        rows: the number of rows.
        valid: rows without an error, duplicates and repeats included.
        bad: rows that cannot be sent.
        duplicates: valid rows that equal the first row of their number, if counted.
        repeat_lines: the lines of valid rows whose number has an earlier row with another text, scope or number of
            digits.
        weight: what the valid rows count against the account's rate: segments of texts, or calls.
        lightest: the smallest weight of a valid row.
        heaviest: the largest weight of a valid row.
        samples: the first few bad rows.
        ignored: columns that are not used.
    """

    rows: int = 0
    valid: int = 0
    bad: int = 0
    duplicates: int = 0
    repeat_lines: Sequence[int] = ()
    weight: int = 0
    lightest: int = 0
    heaviest: int = 0
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])

    @property
    def repeated(self) -> int:
        """The number of repeats."""
        return len(self.repeat_lines)

    def sendable_weight(self, *, allow_repeats: bool) -> float:
        """Return the weight without duplicates, which are sent once, and without repeats unless they are allowed."""
        sent = self.valid - self.duplicates - (0 if allow_repeats else self.repeated)
        return self.weight * sent / self.valid if self.valid else 0.0


def scan(  # noqa: PLR0913 - keyword arguments with defaults
    reader: RowReader,
    *,
    channel: str,
    counter: RepeatCounter | None = None,
    count_duplicates: bool = False,
    rejects: Rejects | None = None,
    progress: Callable[[int], None] = lambda _rows: None,
) -> ScanResult:
    """Read, check and count all rows.

    Args:
        reader: the rows.
        channel: ``"messaging"``, where a text counts by its segments, or ``"voice"``.
        counter: finds rows of a number that has an earlier row.
        count_duplicates: whether to use the counter also where rows have no text of their own, so that a second row of
            a number can only be equal to the first.
        rejects: receives the bad rows; started at the first row, since the columns are not known before.
        progress: called with the number of rows every 2,000 rows and at the end.

    Raises:
        InputFileError: the file as a whole cannot be sent.
        ConfigurationError: the temporary file cannot be written.
        RejectsFileError: the rejects file cannot be written.
    """
    result = ScanResult()
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
        if counter is not None and (count_duplicates or reader.has_own_values):
            counter.add(row)
    progress(result.rows)
    if counter is not None:
        result.duplicates, result.repeat_lines = counter.count()
        result.samples += [BadRow(line, REPEATED, (), is_repeat=True) for line in result.repeat_lines[:MAX_SAMPLES]]
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


def scan_document(scan: ScanResult, channel: str, rate: Rate | None, *, allow_repeats: bool = False) -> dict[str, Any]:
    """Return the JSON document of a scan."""
    used, source = (rate, "--rate") if rate else (DEFAULT_RATES[channel].rate, DEFAULT_RATES[channel].source)
    return {
        "rows": scan.rows,
        "valid": scan.valid,
        "bad": scan.bad,
        "duplicates": scan.duplicates,
        "repeats": scan.repeated,
        ("calls" if channel == "voice" else "segments"): scan.weight,
        "rate_per_second": used.per_second,
        "rate_source": source,
        "seconds": round(scan.sendable_weight(allow_repeats=allow_repeats) / used.per_second, 1),
        "ignored_columns": scan.ignored,
    }
