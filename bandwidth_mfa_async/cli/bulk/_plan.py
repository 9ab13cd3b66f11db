"""The plan and the result of a bulk run."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from ._rows import RowReader, format_of
from ._source import Source, display_name, open_input

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..._models import CodeTemplate
    from ...bulk import BulkSummary
    from ...errors import Delivery, MFAError
    from ._rows import BadRow, Format


@frozen(kw_only=True)
class Plan:
    """The input and the settings of a bulk run.

    Attributes:
        path: the input; ``-`` for standard input.
        form: its format.
        template: the defaults for values that a row does not have.
        channel: ``"messaging"`` or ``"voice"``.
        journal: the journal's path; None for a temporary journal, which is deleted after a finished run.
        run: the run's name.
        max_in_flight: the maximum number of codes in flight.
    """

    path: str
    form: Format
    template: CodeTemplate
    channel: str
    journal: str | None
    run: str
    max_in_flight: int


@define
class RunResult:
    """The result of a run.

    Attributes:
        summary: the counts.
        previous: the number of skipped items by their earlier outcome; the key None counts duplicates in the input.
        samples: the first few bad rows.
        ignored: columns that were not used.
        error: the error that ended the run, if any.
        journal: the journal to resume from; None if there is nothing to resume.
        rejects: the number of rows written to the rejects file.
        stop_reason: why the run ended early without an error.
    """

    summary: BulkSummary
    previous: Counter[Delivery | None] = field(factory=Counter["Delivery | None"])
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])
    error: MFAError | None = None
    journal: str | None = None
    rejects: int = 0
    stop_reason: str = ""


@contextlib.contextmanager
def open_rows(path: str, form: Format, template: CodeTemplate) -> Generator[tuple[RowReader, int | None]]:
    """Open an input; yield its rows and its size in bytes, or None if the size is not known.

    Raises:
        InputFileError: the input cannot be read.
    """
    stream, size = open_input(path)
    with contextlib.closing(stream):
        source = Source(stream, display_name(path))
        with contextlib.closing(source):
            yield RowReader(source, template, format_of(path, source, form)), size
