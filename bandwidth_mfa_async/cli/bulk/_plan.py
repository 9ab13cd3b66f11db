"""What a bulk run of the command line is to do, and how it went."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from ._rows import RowReader, format_of
from ._source import Source, name_of, open_input

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..._models import CodeTemplate
    from ...bulk import BulkSummary
    from ...errors import Delivery, MFAError
    from ._rows import BadRow, Format


@frozen(kw_only=True)
class Plan:
    """What a bulk run is to do.

    Attributes:
        path: the input; ``-`` for standard input.
        form: its format.
        template: what is sent where a row says nothing else.
        channel: ``"messaging"`` or ``"voice"``.
        journal: the journal's path; None for one that is thrown away after a run that finished.
        run: the run's name.
        max_in_flight: codes under way at once.
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
    """How a run went.

    Attributes:
        summary: the counts.
        previous: what became before of the skipped ones.
        samples: the first few bad rows.
        ignored: columns that nothing was done with.
        error: what ended it, if anything did.
        journal: where it can be resumed from; None when there is nothing to resume.
        rejects: rows written to the rejects file.
        why: why it ended before its end, where that is no error.
    """

    summary: BulkSummary
    previous: Counter[Delivery | None] = field(factory=Counter["Delivery | None"])
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])
    error: MFAError | None = None
    journal: str | None = None
    rejects: int = 0
    why: str = ""


@contextlib.contextmanager
def open_rows(path: str, form: Format, template: CodeTemplate) -> Generator[tuple[RowReader, int | None]]:
    """Open an input; give its rows and its size in bytes, None where that is not known.

    Raises:
        InputFileError: it cannot be read.
    """
    stream, size = open_input(path)
    with contextlib.closing(stream):
        source = Source(stream, name_of(path))
        with contextlib.closing(source):
            yield RowReader(source, template, format_of(path, source, form)), size
