"""The plan and the result of a bulk run."""

from __future__ import annotations

import contextlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from ._repeats import RepeatIndex, is_one_of_lines
from ._rows import RowReader, format_of
from ._source import Source, display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ..._models import CodeTemplate
    from ..._validation import Channel
    from ...bulk import BulkSummary
    from ...errors import Delivery, MFAError
    from ._rows import BadRow, Format, InputRow
    from ._source import InputFile


@frozen(kw_only=True)
class Plan:
    """The input and the settings of a bulk run.

    Attributes:
        input: the input.
        form: its format.
        column: the name of the column with the numbers.
        template: the defaults for values that a row does not have.
        channel: ``"messaging"`` or ``"voice"``.
        journal: the journal's path; None for a temporary journal, which is deleted after a finished run.
        run: the run's name.
        max_in_flight: the maximum number of codes in flight.
        allow_repeats: whether a second row for a number is sent if its text, scope or number of digits differs.
        checked_rows: the number of rows that the check found; None for a pipe, which is not checked.
        repeat_lines: the lines of the rows that repeat an earlier row's number with another text; empty for a pipe.
    """

    input: InputFile
    form: Format
    template: CodeTemplate
    channel: Channel
    journal: str | None
    run: str
    max_in_flight: int
    allow_repeats: bool = False
    column: str = "to"
    checked_rows: int | None = None
    repeat_lines: Sequence[int] = ()

    @property
    def path(self) -> str:
        """The input's path; ``-`` for standard input."""
        return self.input.path


@define
class RunResult:
    """The result of a run.

    Attributes:
        summary: the counts.
        previous: the number of skipped items by their earlier outcome; the key None counts duplicates in the input.
        samples: the first few bad rows.
        ignored: columns that were not used.
        suspect_lines: the line of a row of a pipe in which a quote may be missing, if any.
        error: the error that ended the run, if any.
        journal: the journal to resume from; None if there is nothing to resume.
        rejects: the number of rows written to the rejects file.
        rejected_shown: the number of rows shown that the service rejected.
        unknowns: the number of rows written to the file of unknown rows.
        repeated: rows that were not sent because they repeat a number with another text.
        stop_reason: why the run ended early without an error.
    """

    summary: BulkSummary
    previous: Counter[Delivery | None] = field(factory=Counter["Delivery | None"])
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])
    suspect_lines: list[int] = field(factory=list[int])
    error: MFAError | None = None
    journal: str | None = None
    rejects: int = 0
    rejected_shown: int = 0
    unknowns: int = 0
    repeated: int = 0
    stop_reason: str = ""


@contextlib.contextmanager
def open_rows(plan: Plan) -> Generator[tuple[RowReader, int | None]]:
    """Open an input; yield its rows and its size in bytes, or None if the size is not known.

    Raises:
        InputFileError: the input cannot be read, or a file was changed since it was first opened.
    """
    with contextlib.ExitStack() as stack:
        stream, size = plan.input.open()
        stack.enter_context(contextlib.closing(stream))
        source = Source(stream, display_name(plan.path), plan.input.verify)
        stack.enter_context(contextlib.closing(source))
        if plan.allow_repeats:
            is_repeat: Callable[[InputRow], bool] | None = None
        elif plan.input.is_pipe:
            is_repeat = stack.enter_context(contextlib.closing(RepeatIndex())).is_repeat
        else:
            is_repeat = partial(is_one_of_lines, plan.repeat_lines)
        yield (
            RowReader(source, plan.template, format_of(plan.path, source, plan.form), is_repeat, column=plan.column),
            size,
        )
