"""The file of rows that were not sent for a reason of their own: mended, it is input for another run."""

from __future__ import annotations

import csv
import os
import pathlib
import stat
from typing import TYPE_CHECKING, Any

from ...errors import MFAError
from .._files import is_one_of
from ._rows import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self, TextIO

_FIRST = (",".join(OURS) + ",").encode()


class RejectsFileError(MFAError):
    """The file for refused rows cannot be written; says why."""


class Rejects:
    """Writes rows with their line and the reason, in CSV.

    The file is opened at once, so that nothing is sent when it cannot be, and emptied by `start` only. It holds phone
    numbers, and is readable by its owner only when it is created here.

    Args:
        path: the file.
        kept: files that it must not be, such as the input.

    Raises:
        RejectsFileError: it cannot be written, or holds something else.
    """

    def __init__(self, path: str, kept: Sequence[str] = ()) -> None:
        self.path = path
        self.count = 0
        """Rows written."""
        self._skipped = 0
        self._started = False
        self._created = not os.path.lexists(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            try:
                self._check(descriptor, kept)
            except BaseException:
                os.close(descriptor)
                if self._created:
                    pathlib.Path(path).unlink()
                raise
            self._file: TextIO = os.fdopen(
                descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1
            )
        except OSError as error:
            raise self._cannot(error) from None
        self._writer: Any = csv.writer(self._file)

    def _check(self, descriptor: int, kept: Sequence[str]) -> None:
        if not self._regular:
            return
        if is_one_of(self.path, kept):
            raise RejectsFileError(f"--rejects: {self.path} is used by this very command; name another file")
        if os.pread(descriptor, len(_FIRST), 0) not in {b"", _FIRST}:
            raise RejectsFileError(f"--rejects: {self.path} exists and is no file of rejected rows; name another file")

    def _cannot(self, error: OSError) -> RejectsFileError:
        return RejectsFileError(f"--rejects: {self.path} cannot be written: {error.strerror or error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:
            if error is None:
                raise self._cannot(failure) from None
        # A file with nothing to mend in it would be one more thing to look at.
        if not self.count and (self._created or self._started) and self._regular:
            pathlib.Path(self.path).unlink(missing_ok=True)

    def start(self, header: Sequence[str]) -> None:
        """Empty the file and write its first line.

        Args:
            header: the names of the input's columns.
        """
        # The input may be such a file itself; then the line and the reason are those of now.
        self._skipped = len(OURS) if tuple(header[: len(OURS)]) == OURS else 0
        try:
            if self._regular:
                self._file.seek(0)
                self._file.truncate()
            self._started, self.count = True, 0
            self._writer.writerow([*OURS, *header[self._skipped :]])
        except OSError as error:
            raise self._cannot(error) from None

    def add(self, line: int, reason: str, cells: Sequence[str]) -> None:
        """Write a row.

        Args:
            line: where it stands in the input.
            reason: why it was not sent.
            cells: the row as it stands there.

        Raises:
            RejectsFileError: the disk is full, for instance.
        """
        try:
            self._writer.writerow([line, reason, *(cells[self._skipped :] or cells)])
        except OSError as error:
            raise self._cannot(error) from None
        self.count += 1
