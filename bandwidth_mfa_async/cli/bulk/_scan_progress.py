"""Scans the input of the command `bulk` with a progress bar, and reports an input without a valid row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from .._output import can_animate
from ._input_scan import scan
from ._plan import open_rows
from ._repeats import RepeatCounter
from ._source import InputFileError, display_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, RenderableType
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from ._input_scan import ScanResult
    from ._plan import Plan
    from ._rejects import Rejects
    from ._rows import BadRow


class ScanProgress(Progress):
    """Shows how much of an input was read in one line, with fewer columns on a narrow terminal.

    Args:
        console: where to print; nothing is shown unless it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        # Set before super().__init__, which calls get_renderables.
        self._terminal = console
        # Each with the minimum width of the terminal to show it.
        self._all_columns: list[tuple[int, ProgressColumn]] = [
            (0, TextColumn("checking", table_column=_fixed_width())),
            (0, BarColumn(bar_width=None, table_column=Column(ratio=1))),
            (70, DownloadColumn(table_column=_fixed_width())),
            (0, TextColumn("{task.fields[rows]:,} rows", table_column=_fixed_width())),
            (50, _TimeLeft(table_column=_fixed_width())),
        ]
        super().__init__(console=console, transient=True, expand=True, disable=not can_animate(console))

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the line for the current width of the terminal."""
        self.columns = tuple(column for min_width, column in self._all_columns if self._terminal.width >= min_width)
        return super().get_renderables()


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        time = super().render(task)
        # Empty if the size of the input is not known.
        return time.append(" left") if time else time


def _fixed_width() -> Column:
    return Column(no_wrap=True, overflow="ellipsis")


def scan_input(
    plan: Plan, console: Console, *, count_duplicates: bool = False, rejects: Rejects | None = None
) -> ScanResult:
    """Scan a whole input, with a progress bar on a terminal.

    Args:
        plan: the run with the input.
        console: where the progress is shown.
        count_duplicates: whether to count duplicates also where rows have no text of their own.
        rejects: receives the bad rows.

    Raises:
        InputFileError: the input cannot be read, was changed meanwhile, or has no valid row.
    """
    result = _scan_with_progress(plan, console, rejects, count_duplicates=count_duplicates)
    if not result.valid:
        raise no_valid_rows(plan.path, result.rows, result.samples, rejects)
    return result


def scan_before_send(plan: Plan, console: Console, rejects: Rejects | None) -> ScanResult | None:
    """Scan an input before sending; return None for a pipe, which can be read only once.

    Raises:
        InputFileError: the input cannot be read, was changed meanwhile, or has no valid row; in the last case all rows
            are in the rejects file.
    """
    if plan.input.is_pipe:
        return None
    result = _scan_with_progress(plan, console)
    if result.valid:
        return result
    if rejects is None:
        raise no_valid_rows(plan.path, result.rows, result.samples)
    # Scan again for the rejects: the first scan must not overwrite the rejects of an earlier run.
    return scan_input(plan, console, rejects=rejects)


def _scan_with_progress(
    plan: Plan, console: Console, rejects: Rejects | None = None, *, count_duplicates: bool = False
) -> ScanResult:
    opened = open_rows(plan)
    with opened as (reader, size), ScanProgress(console) as progress, RepeatCounter() as counter:
        bar = progress.add_task("", total=size, rows=0)
        return scan(
            reader,
            channel=plan.channel,
            counter=counter,
            count_duplicates=count_duplicates,
            rejects=rejects,
            progress=lambda rows: progress.update(bar, completed=reader.source.bytes_read, rows=rows),
        )


def no_valid_rows(path: str, rows: int, samples: list[BadRow], rejects: Rejects | None = None) -> InputFileError:
    """Return the error for an input without a valid row.

    Args:
        path: the input.
        rows: its number of rows.
        samples: its first rows.
        rejects: the file that contains all rows, if any.
    """
    first = samples[0]
    some = "the only row cannot be sent" if rows == 1 else f"none of the {rows:,} rows can be sent; the first error"
    problem = f"{some}: {first.reason}"
    if rejects is not None:
        problem += f"; {rejects.path} contains every row"
    return InputFileError(display_name(path), first.line, problem)
