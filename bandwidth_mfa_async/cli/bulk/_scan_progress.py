"""The look through a whole input as the command `bulk` has it done: with a bar, with its rejects, and its end named."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ._input_scan import scan
from ._plan import open_rows
from ._source import InputFileError, is_pipe, name_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rich.console import Console, RenderableType
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from ._input_scan import DuplicateCounter, ScanResult
    from ._plan import Plan
    from ._rejects import Rejects
    from ._rows import BadRow


class CheckProgress(Progress):
    """Shows how much of an input was read, in one line of any width: what is least needed goes first.

    Args:
        console: where; nothing is shown where it is no terminal.
    """

    def __init__(self, console: Console) -> None:
        # Rich asks for the line while it makes the bar: what that needs is there before.
        self._terminal = console
        # Each with the columns that a terminal must have for it.
        self._choice: list[tuple[int, ProgressColumn]] = [
            (0, TextColumn("checking", table_column=_whole())),
            (0, BarColumn(bar_width=None, table_column=Column(ratio=1))),
            (70, DownloadColumn(table_column=_whole())),
            (0, TextColumn("{task.fields[rows]:,} rows", table_column=_whole())),
            (50, _TimeLeft(table_column=_whole())),
        ]
        super().__init__(console=console, transient=True, expand=True, disable=not console.is_terminal)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give the line, as wide as the terminal is now."""
        self.columns = tuple(column for least, column in self._choice if self._terminal.width >= least)
        return super().get_renderables()


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        time = super().render(task)
        # There is none where the size of the input is not known.
        return time.append(" left") if time else time


def _whole() -> Column:
    return Column(no_wrap=True, overflow="ellipsis")


def checked(
    plan: Plan, console: Console, *, repeats: DuplicateCounter | None = None, rejects: Rejects | None = None
) -> ScanResult:
    """Look through a whole input, with a progress bar by bytes on a terminal.

    Raises:
        InputFileError: it cannot be read, or none of its rows can be sent.
        KeyboardInterrupt: says that nothing was sent.
    """
    found = _looked_through(plan, console, repeats, rejects)
    if not found.valid:
        raise nothing_to_send(plan.path, found.rows, found.samples, rejects)
    return found


def rows_to_send(plan: Plan, console: Console, rejects: Rejects | None) -> int | None:
    """Look through an input that will be sent; return how many rows it has, None where one look is all there is.

    Raises:
        InputFileError: it cannot be read, or none of its rows can be sent; then the rejects have them.
        KeyboardInterrupt: says that nothing was sent.
    """
    if is_pipe(plan.path):
        return None
    found = _looked_through(plan, console)
    if found.valid:
        return found.rows
    if rejects is None:
        raise nothing_to_send(plan.path, found.rows, found.samples)
    # Only now: what an earlier run has left there is kept until this one has something for it.
    return checked(plan, console, rejects=rejects).rows


def _looked_through(
    plan: Plan, console: Console, repeats: DuplicateCounter | None = None, rejects: Rejects | None = None
) -> ScanResult:
    opened = open_rows(plan.path, plan.form, plan.template)
    with _nothing_sent(), opened as (reader, size), CheckProgress(console) as progress:
        bar = progress.add_task("", total=size, rows=0)
        return scan(
            reader,
            channel=plan.channel,
            repeats=repeats,
            rejects=rejects,
            progress=lambda rows: progress.update(bar, completed=reader.source.count, rows=rows),
        )


@contextlib.contextmanager
def _nothing_sent() -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was sent") from None


def nothing_to_send(path: str, rows: int, samples: list[BadRow], rejects: Rejects | None = None) -> InputFileError:
    """Return what says that no row is good.

    Args:
        path: the input.
        rows: how many it has.
        samples: the first of them.
        rejects: has them all.
    """
    first = samples[0]
    problem = f"none of the {rows:,} rows can be sent; the first of them: {first.reason}"
    if rejects is not None:
        problem += f"; {rejects.path} has them all"
    return InputFileError(name_of(path), first.line, problem)
