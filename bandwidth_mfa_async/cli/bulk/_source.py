"""The bytes of an input file: counted, looked through for what no text file holds, and handed on as text."""

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

CHUNK: Final = 1 << 18
MAX_LINE: Final = 1 << 20
_HEAD: Final = 64
# What people pass by mistake, known by its first bytes: its name, and what to do.
_FOREIGN: Final = (
    (b"PK\x03\x04", "is a ZIP archive or a workbook such as .xlsx: export the sheet as 'CSV UTF-8'"),
    (b"\x1f\x8b", "is compressed: run gunzip -c on it and pipe that into 'bandwidth-mfa bulk -'"),
    (b"SQLite format 3\x00", "is a SQLite database, such as a journal: name the file with the numbers"),
)
_UTF16: Final = "is UTF-16 or UTF-32, not UTF-8: save it as 'CSV UTF-8', or run iconv -f UTF-16 -t UTF-8 on it"


class InputFileError(MFAError):
    """A file as a whole cannot be read; nothing of it is to be sent.

    Attributes:
        name: the file.
        line: the physical line where the trouble is, from 1; None where it is the whole file.
        problem: what is wrong and what to do; holds nothing of the file's contents.
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
    """The line that is being read does not end; only the reader knows its number."""


def open_input(path: str) -> tuple[BinaryIO, int | None]:
    """Open a file, or standard input for ``-``; return it and its size in bytes, None where that is not known.

    Raises:
        InputFileError: there is no such file, or it cannot be read.
    """
    try:
        if path == "-":
            if sys.stdin is None:  # closed by whoever started this program
                raise InputFileError(name_of(path), None, "cannot be read: it is closed")
            # Not sys.stdin's own buffer: a thread may still be reading when the program ends, and its lock
            # would then be waited for.
            stream = io.FileIO(sys.stdin.fileno(), closefd=False)
        else:
            stream = io.FileIO(path)
            if not stream.seekable():
                return stream, None  # a FIFO, or a shell's <(command)
        return stream, os.fstat(stream.fileno()).st_size if stream.seekable() else None
    except OSError as error:
        raise InputFileError(name_of(path), None, f"cannot be read: {error.strerror or error}") from None


def is_pipe(path: str) -> bool:
    """Tell whether an input can be read only once, so that it cannot be looked through first."""
    try:
        mode = pathlib.Path(path).stat().st_mode
    except OSError:
        return path == "-"
    return path == "-" or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def name_of(path: str) -> str:
    """Return what a message calls an input."""
    # A path like '.' has no last part.
    return "standard input" if path == "-" else pathlib.Path(path).name or repr(path)


class Source(io.RawIOBase):
    """A binary stream that counts what it gives and notes what would make its text suspect.

    Args:
        stream: where the bytes come from.
        name: what error messages call it.

    Raises:
        InputFileError: the first bytes are those of UTF-16, of an archive, or there are none.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._unended = 0
        self._ends: tuple[bytes, ...] = (b"\n", b"\r")
        self.name = name
        self.count = 0
        """Bytes read so far, a byte-order mark included."""
        self.suspect = False
        """Whether a NUL, or something that is not UTF-8, has been met."""
        self.before_read: Callable[[], None] = lambda: None
        """Called before every read, which may wait for as long as a pipe's other end likes."""
        self._head = self._read_head()

    def _read_head(self) -> bytes:
        head = b""
        while len(head) < _HEAD and (more := self._read(CHUNK)):
            head += more
        if not head.removeprefix(codecs.BOM_UTF8).strip():
            raise InputFileError(self.name, None, "is empty: it must hold at least one number")
        for start, problem in _FOREIGN:
            if head.startswith(start):
                raise InputFileError(self.name, None, problem)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_like_utf16(head[:_HEAD]):
            raise InputFileError(self.name, 1, _UTF16)
        return head.removeprefix(codecs.BOM_UTF8)

    @property
    def looks_like_json(self) -> bool:
        """Whether the first thing in it is a JSON object or array."""
        return self._head.lstrip()[:1] in {b"{", b"["}

    def text(self, *, newline: str) -> io.TextIOWrapper:
        """Return the bytes as text; what is not UTF-8 becomes lone surrogates, and `suspect` is set before it.

        Args:
            newline: what ends a line, as `io.TextIOWrapper` takes it: empty for all three kinds, or a line feed.
        """
        if newline:
            self._ends = (newline.encode(),)
        return io.TextIOWrapper(
            io.BufferedReader(self, CHUNK), encoding="utf-8", errors="surrogateescape", newline=newline
        )

    def readable(self) -> bool:
        """Say so, as `io` asks."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read as `io` asks.

        Raises:
            LineTooLongError: no line ends within a MiB, so that memory would grow with the file.
        """
        view = memoryview(buffer)
        chunk, self._head = self._head[: len(view)], self._head[len(view) :]
        if not chunk:
            chunk = self._read(len(view))
        view[: len(chunk)] = chunk
        self._look_through(chunk)
        return len(chunk)

    def close(self) -> None:
        """Close the stream as well; standard input is left open."""
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
        self.count += len(chunk)
        return chunk

    def _look_through(self, chunk: bytes) -> None:
        first = min((at for end in self._ends if (at := chunk.find(end)) >= 0), default=len(chunk))
        if self._unended + first > MAX_LINE:
            raise LineTooLongError
        last = max(chunk.rfind(end) for end in self._ends)
        self._unended = len(chunk) - last - 1 if last >= 0 else self._unended + len(chunk)
        if self.suspect:
            return
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            self.suspect = True
        else:
            self.suspect = b"\0" in chunk


def _looks_like_utf16(head: bytes) -> bool:
    """Tell UTF-16 and UTF-32 without a mark by their zeros, which stand in every second place of ASCII text."""
    zeros = [at for at, byte in enumerate(head) if byte == 0]
    return len(zeros) * 4 >= len(head) and (len({at % 2 for at in zeros}) == 1 or len(zeros) * 2 > len(head))
