"""Reads the bytes of an input file: counts them, detects files that are not UTF-8 text, and decodes them."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import pathlib
import stat
import sys
from typing import TYPE_CHECKING, BinaryIO, Final

from ...errors import MFAError
from .._terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

CHUNK: Final = 1 << 18
MAX_LINE: Final = 1 << 20
_HEAD: Final = 64
# Other file types by their first bytes, each with a message.
_FOREIGN: Final = (
    (b"PK\x03\x04", "is a ZIP archive or a workbook such as .xlsx: export the sheet as 'CSV UTF-8'"),
    (b"\x1f\x8b", "is compressed: run gunzip -c on it and pipe that into 'bandwidth-mfa bulk -'"),
    (
        b"\xd0\xcf\x11\xe0",
        "is an old Excel workbook (.xls): export the sheet as 'CSV UTF-8'",
    ),
    (b"SQLite format 3\x00", "is a SQLite database, such as a journal: give the file with the numbers instead"),
)
_CHANGED: Final = (
    "was changed, replaced or removed after this command opened it, so the rest is not sent; run the command again "
    "when the file is complete"
)
_UTF16: Final = "is UTF-16 or UTF-32, not UTF-8: save it as 'CSV UTF-8', or run iconv -f UTF-16 -t UTF-8 on it"


class InputFileError(MFAError):
    """The file as a whole cannot be read, and none of its rows must be sent.

    Attributes:
        name: the file's name.
        line: the physical line of the problem, from 1; None if the problem concerns the whole file.
        problem: what is wrong and what to do; contains nothing of the file's contents.
    """

    def __init__(self, name: str, line: int | None, problem: str) -> None:
        super().__init__(name, line, problem)
        self.name = name
        self.line = line
        self.problem = problem

    def __str__(self) -> str:
        where = self.name if self.line is None else f"{self.name}, line {self.line}"
        return f"{where}: {self.problem}"


class LineTooLongError(Exception):
    """A line is longer than `MAX_LINE`; the reader adds its number."""


class InputFile:
    """An input. A file is opened once, so that the check and the sending read the same file.

    Args:
        path: the file, or ``-`` for standard input.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_pipe = is_pipe(path)
        """Whether the input can be read only once, so that it cannot be checked before sending."""
        self._file: BinaryIO | None = None
        self._facts: tuple[int, ...] = ()

    def open(self) -> tuple[BinaryIO, int | None]:
        """Return a stream at the input's beginning, and its size in bytes, or None if the size is not known.

        Raises:
            InputFileError: the file does not exist or cannot be read.
        """
        if self.is_pipe:
            return open_input(self.path)
        if self._file is None:
            self._file, _ = open_input(self.path)
            self._facts = _facts(os.fstat(self._file.fileno()))
        # Only one stream is read at a time: all of them share the position in the file.
        descriptor = os.dup(self._file.fileno())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return io.FileIO(descriptor), os.fstat(descriptor).st_size

    def close(self) -> None:
        """Close the file; streams that are still read stay open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def verify(self) -> None:
        """Compare the file's device, inode, size and time of modification with those at its first opening.

        Raises:
            InputFileError: the file was rewritten, extended, truncated, replaced or removed.
        """
        if self._file is None:
            return
        try:
            facts = _facts(os.stat(self.path))  # noqa: PTH116 - a path as given
        except OSError:
            facts = ()
        if facts != self._facts:
            raise InputFileError(display_name(self.path), None, _CHANGED)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_input(path: str) -> tuple[BinaryIO, int | None]:
    """Open a file, or standard input for ``-``; return it and its size in bytes, or None if the size is not known.

    Raises:
        InputFileError: the file does not exist or cannot be read.
    """
    try:
        if path == "-":
            if sys.stdin is None:  # closed by the parent process
                raise InputFileError(display_name(path), None, "cannot be read: it is closed")
            # Not sys.stdin.buffer: if a thread still reads at exit, the interpreter would wait for the buffer's lock.
            stream = io.FileIO(sys.stdin.fileno(), closefd=False)
        else:
            stream = io.FileIO(path)
            if not stream.seekable():
                return stream, None  # a FIFO, or a shell's <(command)
        return stream, os.fstat(stream.fileno()).st_size if stream.seekable() else None
    except OSError as error:
        raise InputFileError(display_name(path), None, f"cannot be read: {error.strerror or error}") from None


def is_pipe(path: str) -> bool:
    """Return whether an input can be read only once, so that it cannot be scanned before sending."""
    try:
        mode = pathlib.Path(path).stat().st_mode
    except OSError:
        return path == "-"
    return path == "-" or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def display_name(path: str) -> str:
    """Return the name of an input for messages: the file's name without its folders."""
    # The path '.' has no name.
    return "standard input" if path == "-" else printable(pathlib.Path(path).name) or repr(path)


def row_problem(path: str, line: int, reason: str) -> str:
    """Return a message about a row of an input.

    Args:
        path: the input.
        line: the row's first line, from 1.
        reason: what is wrong and what to do.
    """
    return f"{display_name(path)}, line {line}: {reason}"


class Source(io.RawIOBase):
    """A binary stream that counts its bytes and detects bytes that are not UTF-8 text.

    Args:
        stream: the source of the bytes.
        name: its name in error messages.
        verify: called after every read; raises if the bytes must not be used.

    Raises:
        InputFileError: the stream is empty, or begins like UTF-16, an archive or a database.
    """

    def __init__(self, stream: BinaryIO, name: str, verify: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._stream = stream
        self._verify = verify
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line_length = 0
        self._line_ends: tuple[bytes, ...] = (b"\n", b"\r")
        self.name = name
        self.bytes_read = 0
        """The number of bytes read so far, including a byte-order mark."""
        self.suspect = False
        """Whether a NUL or bytes that are not UTF-8 were read."""
        self.before_read: Callable[[], None] = lambda: None
        """Called before every read, which may block for as long as a pipe has no data."""
        self._head = self._read_head()

    def _read_head(self) -> bytes:
        head = b""
        while len(head) < _HEAD and (more := self._read(CHUNK)):
            head += more
        # Some programs add a byte-order mark to a file that has one already.
        while head.startswith(codecs.BOM_UTF8):
            head = head.removeprefix(codecs.BOM_UTF8)
        if not head.strip():
            raise InputFileError(self.name, None, "is empty: it must contain at least one number")
        for start, problem in _FOREIGN:
            if head.startswith(start):
                raise InputFileError(self.name, None, problem)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_like_utf16(head[:_HEAD]):
            raise InputFileError(self.name, 1, _UTF16)
        return head

    @property
    def looks_like_json(self) -> bool:
        """Whether the first character, apart from white space, begins a JSON object or array."""
        return self._head.lstrip()[:1] in {b"{", b"["}

    def text(self, *, newline: str) -> io.TextIOWrapper:
        """Return the decoded text; bytes that are not UTF-8 become lone surrogates, and `suspect` is set before them.

        Args:
            newline: the line end, as for `io.TextIOWrapper`: empty for all three kinds, or a line feed.
        """
        if newline:
            self._line_ends = (newline.encode(),)
        return io.TextIOWrapper(
            io.BufferedReader(self, CHUNK), encoding="utf-8", errors="surrogateescape", newline=newline
        )

    def readable(self) -> bool:
        """Return True, as `io` requires."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into a buffer, as `io` requires.

        Raises:
            LineTooLongError: no line ends within 1 MiB; without the limit, memory would grow with the file.
        """
        view = memoryview(buffer)
        chunk, self._head = self._head[: len(view)], self._head[len(view) :]
        if not chunk:
            chunk = self._read(len(view))
        view[: len(chunk)] = chunk
        self._inspect(chunk)
        return len(chunk)

    def close(self) -> None:
        """Close this object and the stream; the file descriptor of standard input stays open."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._stream.close()
        super().close()

    def _read(self, size: int) -> bytes:
        self.before_read()
        try:
            chunk = self._stream.read(size) or b""
        except OSError as error:
            raise InputFileError(self.name, None, f"cannot be read: {error.strerror or error}") from None
        self._verify()
        self.bytes_read += len(chunk)
        return chunk

    def _inspect(self, chunk: bytes) -> None:
        first = min((at for end in self._line_ends if (at := chunk.find(end)) >= 0), default=len(chunk))
        if self._line_length + first > MAX_LINE:
            raise LineTooLongError
        last = max(chunk.rfind(end) for end in self._line_ends)
        self._line_length = len(chunk) - last - 1 if last >= 0 else self._line_length + len(chunk)
        if self.suspect:
            return
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            self.suspect = True
        else:
            self.suspect = b"\0" in chunk


def _looks_like_utf16(head: bytes) -> bool:
    """Detect UTF-16 and UTF-32 without a byte-order mark by the zeros at every second byte of ASCII text."""
    zeros = [at for at, byte in enumerate(head) if byte == 0]
    return len(zeros) * 4 >= len(head) and (len({at % 2 for at in zeros}) == 1 or len(zeros) * 2 > len(head))
