"""Scans the input of the command `bulk` with a progress bar, and reports an input without a valid row."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ._input_scan import scan
from ._plan import open_rows
from ._source import InputFileError, display_name, is_pipe

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rich.console import Console, RenderableType
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from ._input_scan import DuplicateCounter, ScanResult
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
        super().__init__(console=console, transient=True, expand=True, disable=not console.is_terminal)

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
    plan: Plan, console: Console, *, duplicates: DuplicateCounter | None = None, rejects: Rejects | None = None
) -> ScanResult:
    """Scan a whole input, with a progress bar on a terminal.

    Raises:
        InputFileError: the input cannot be read, or has no valid row.
        KeyboardInterrupt: its message says that nothing was sent.
    """
    result = _scan_with_progress(plan, console, duplicates, rejects)
    if not result.valid:
        raise no_valid_rows(plan.path, result.rows, result.samples, rejects)
    return result


def scan_before_send(plan: Plan, console: Console, rejects: Rejects | None) -> int | None:
    """Scan an input before sending; return its number of rows, or None for a pipe, which can be read only once.

    Raises:
        InputFileError: the input cannot be read, or has no valid row; in that case all rows are in the rejects file.
        KeyboardInterrupt: its message says that nothing was sent.
    """
    if is_pipe(plan.path):
        return None
    result = _scan_with_progress(plan, console)
    if result.valid:
        return result.rows
    if rejects is None:
        raise no_valid_rows(plan.path, result.rows, result.samples)
    # Scan again for the rejects: the first scan must not overwrite the rejects of an earlier run.
    return scan_input(plan, console, rejects=rejects).rows


def _scan_with_progress(
    plan: Plan, console: Console, duplicates: DuplicateCounter | None = None, rejects: Rejects | None = None
) -> ScanResult:
    opened = open_rows(plan.path, plan.form, plan.template)
    with _interrupt_note(), opened as (reader, size), ScanProgress(console) as progress:
        bar = progress.add_task("", total=size, rows=0)
        return scan(
            reader,
            channel=plan.channel,
            duplicates=duplicates,
            rejects=rejects,
            progress=lambda rows: progress.update(bar, completed=reader.source.bytes_read, rows=rows),
        )


@contextlib.contextmanager
def _interrupt_note() -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was sent") from None


def no_valid_rows(path: str, rows: int, samples: list[BadRow], rejects: Rejects | None = None) -> InputFileError:
    """Return the error for an input without a valid row.

    Args:
        path: the input.
        rows: its number of rows.
        samples: its first rows.
        rejects: the file that contains all rows, if any.
    """
    first = samples[0]
    problem = f"none of the {rows:,} rows can be sent; the first error: {first.reason}"
    if rejects is not None:
        problem += f"; all rows are in {rejects.path}"
    return InputFileError(display_name(path), first.line, problem)
