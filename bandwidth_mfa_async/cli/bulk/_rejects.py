"""Files of rows that need correction, or whose outcome is unknown; such a file is the input of another run."""

from __future__ import annotations

import csv
import os
import pathlib
import stat
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ...errors import MFAError
from .._files import is_one_of
from .._terminal import printable
from ._cells import escape_formula
from ._rows import REJECT_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self, TextIO

    from ._plan import RunResult

_HEADER_START = (",".join(REJECT_COLUMNS) + ",").encode()


UNKNOWN_REASON: Final = "unknown: the code may have been sent"


class RejectsFileError(MFAError):
    """A file of rows cannot be written; the message says why."""


class Rejects:
    """Writes rows with their line and a reason, as CSV.

    The constructor opens the file, so that nothing is sent if that fails; only `start` truncates it. The file contains
    phone numbers, so it is readable by its owner only, also if it was made beforehand. A cell that a spreadsheet would
    run as a formula gets a leading apostrophe, which a reader of the file removes again.

    Args:
        path: the file.
        option: the command's option for it.
        protected: files that must not be overwritten, such as the input.

    Raises:
        RejectsFileError: the file cannot be written, or is not a rejects file.
    """

    def __init__(self, path: str, protected: Sequence[str] = (), *, option: str = "--rejects") -> None:
        self.path = path
        self._option = option
        self.count = 0
        """Rows written."""
        self._skipped_columns = 0
        self._started = False
        self._created = not os.path.lexists(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            mode = os.fstat(descriptor).st_mode
            self._regular = stat.S_ISREG(mode)
            try:
                self._check(descriptor, protected)
                if self._regular and mode & 0o077:
                    os.fchmod(descriptor, stat.S_IMODE(mode) & 0o700)
            except BaseException:
                os.close(descriptor)
                if self._created:
                    pathlib.Path(path).unlink()
                raise
            self._file: TextIO = os.fdopen(
                descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1
            )
        except OSError as error:
            raise self._write_error(error) from None
        self._writer: Any = csv.writer(self._file)

    def _check(self, descriptor: int, protected: Sequence[str]) -> None:
        if not self._regular:
            return
        name = printable(self.path)
        if is_one_of(self.path, protected):
            raise RejectsFileError(f"{self._option}: {name} is already used by this command; name another file")
        if os.pread(descriptor, len(_HEADER_START), 0) not in {b"", _HEADER_START}:
            raise RejectsFileError(f"{self._option}: {name} exists and is not a rejects file; name another file")

    def _write_error(self, error: OSError) -> RejectsFileError:
        return RejectsFileError(f"{self._option}: {printable(self.path)} cannot be written: {error.strerror or error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:
            if error is None:
                raise self._write_error(failure) from None
        # Remove the file if it contains no row.
        if not self.count and (self._created or self._started) and self._regular:
            pathlib.Path(self.path).unlink(missing_ok=True)

    def start(self, header: Sequence[str]) -> None:
        """Truncate the file and write its header.

        Args:
            header: the names of the input's columns.
        """
        # If the input is a rejects file itself, its line and reason columns are replaced.
        self._skipped_columns = len(REJECT_COLUMNS) if tuple(header[: len(REJECT_COLUMNS)]) == REJECT_COLUMNS else 0
        try:
            if self._regular:
                self._file.seek(0)
                self._file.truncate()
            self._started, self.count = True, 0
            self._writer.writerow([*REJECT_COLUMNS, *map(escape_formula, header[self._skipped_columns :])])
        except OSError as error:
            raise self._write_error(error) from None

    def add(self, line: int, reason: str, cells: Sequence[str]) -> None:
        """Write a row.

        Args:
            line: its line in the input.
            reason: why it was not sent.
            cells: its cells in the input.

        Raises:
            RejectsFileError: the row cannot be written, for example because the disk is full.
        """
        try:
            self._writer.writerow([line, reason, *map(escape_formula, cells[self._skipped_columns :] or cells)])
        except OSError as error:
            raise self._write_error(error) from None
        self.count += 1


@frozen
class RowFiles:
    """The files of rows that a run writes.

    Attributes:
        rejects: receives the rows that need correction.
        unknowns: receives the rows whose outcome is unknown.
    """

    rejects: Rejects | None = None
    unknowns: Rejects | None = None

    def start(self, header: Sequence[str]) -> None:
        """Truncate the files and write their header: the names of the input's columns."""
        for file in (self.rejects, self.unknowns):
            if file is not None:
                file.start(header)

    def count(self, result: RunResult) -> None:
        """Store the number of rows written in a result."""
        result.rejects = 0 if self.rejects is None else self.rejects.count
        result.unknowns = 0 if self.unknowns is None else self.unknowns.count
