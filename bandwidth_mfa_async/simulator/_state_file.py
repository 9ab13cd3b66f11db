"""The file of `state=`: records that survive `kill -9`, readable by their owner only, for one simulator at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import stat
import zlib
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast

from ._errors import StateFileError
from ._responses import encode

if TYPE_CHECKING:
    from collections.abc import Coroutine

StateRecord: TypeAlias = dict[str, Any]

_LOGGER: Final = logging.getLogger("bandwidth_mfa_async.simulator")
FORMAT: Final = 1
_HEADER: Final[StateRecord] = {"kind": "bandwidth-mfa-simulator", "format": FORMAT}
# Records that may be appended before the file is rewritten with the current state only.
_MIN_GROWTH: Final = 20_000


class StateFile:
    """An open state file, locked against other simulators.

    Each line is a checksum and a JSON object. A checksum covers its line and all lines before it, so a changed, lost or
    moved line is found. The last line may be incomplete, because a process can be killed while it writes; then it is
    ignored. Records are not synchronized to disk one by one: they survive the end of the process, but a power failure
    may lose the last ones.

    Args:
        lines: the open and locked file.
    """

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._path = lines.path
        self._growth = 0
        self._kept = 0
        self._has_failed = False
        # During a rewrite: what is appended while the copy is made, then the copy.
        self._is_rewriting = False
        self._appended: list[StateRecord] = []
        self._copy: _Lines | None = None

    @classmethod
    def open(cls, path: str) -> tuple[Self, list[StateRecord]]:
        """Open and lock the file, create it if it is missing, and return it with its records.

        Raises:
            StateFileError: it is damaged, not a state file, of a newer version, used by another simulator, or cannot be
                opened.
        """
        target = os.path.realpath(path)
        file = _open_locked(path, target)
        try:
            records, size, checksum = _parse(path, _read_all(file))
        except BaseException:
            os.close(file)
            raise
        return cls(_Lines(target, file, size, checksum)), records

    @property
    def needs_rewrite(self) -> bool:
        """Whether most of its records are outdated."""
        return self._growth > max(_MIN_GROWTH, 2 * self._kept)

    def append(self, record: StateRecord) -> None:
        """Append a record. If it cannot be written, for example on a full disk, log a warning and continue."""
        self._growth += 1
        if self._is_rewriting and self._copy is None:
            self._appended.append(record)
        try:
            self._lines.append(record)
            if self._copy is not None:
                self._copy.append(record)
        except OSError as error:
            if not self._has_failed:
                _LOGGER.warning("the state file cannot be written, later messages may be missing in it: %s", error)
            self._has_failed = True
        else:
            self._has_failed = False

    def rewrite(self, records: list[StateRecord]) -> Coroutine[Any, Any, None]:
        """Return a coroutine that replaces the content atomically.

        Records that are appended from this call on are in the old and in the new content. If it fails, it logs a
        warning and keeps the old content.

        Args:
            records: the current state.
        """
        self._is_rewriting = True
        return self._rewrite_to_the_end(records)

    async def _rewrite_to_the_end(self, records: list[StateRecord]) -> None:
        rewriting = asyncio.ensure_future(self._rewrite(records))
        try:
            await asyncio.shield(rewriting)
        except asyncio.CancelledError:
            await asyncio.wait([rewriting])  # a thread cannot be cancelled
            raise

    async def _rewrite(self, records: list[StateRecord]) -> None:
        copy = None
        try:
            copy = await asyncio.to_thread(_write_copy, self._path, records)
            for record in self._appended:
                copy.append(record)
            self._growth, self._kept = len(self._appended), len(records)
            # From here both get each record, so that none is missing whenever the process is killed.
            self._copy = copy
            await asyncio.to_thread(os.replace, copy.path, self._path)
        except OSError as error:
            _LOGGER.warning("the state file cannot be rewritten and grows: %s", error)
            self._growth = 0  # try again later
            if copy is not None:
                await asyncio.to_thread(copy.discard)
        else:
            os.close(self._lines.file)
            self._lines = copy
        finally:
            self._is_rewriting = False
            self._copy = None
            self._appended.clear()

    def close(self) -> None:
        """Close and unlock the file."""
        os.close(self._lines.file)


class _Lines:
    """A file of checksummed lines that is open for writing at its end."""

    def __init__(self, path: str, file: int, size: int = 0, checksum: int = 0) -> None:
        self.path = path
        self.file = file
        self._size = size
        self._checksum = checksum
        # An incomplete last line must not precede the next one.
        self._cut()

    def append(self, record: StateRecord) -> None:
        line, checksum = _line(record, self._checksum)
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self.file, view) :]
        except OSError:
            self._cut()
            raise
        self._size += len(line)
        self._checksum = checksum

    def discard(self) -> None:
        os.close(self.file)
        with contextlib.suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 - a name as given

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self.file, self._size)
            os.lseek(self.file, self._size, os.SEEK_SET)


def _write_copy(path: str, records: list[StateRecord]) -> _Lines:
    name = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # noqa: PTH108 - a name as given; left by a simulator that was killed
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK, 0o600)
    copy = _Lines(name, file)
    try:
        _lock(file)
        for record in (_HEADER, *records):
            copy.append(record)
        os.fsync(file)
    except BaseException:
        copy.discard()
        raise
    return copy


def read_records(path: str) -> list[StateRecord]:
    """Return the records of a state file, or none if the file is missing or empty.

    Raises:
        StateFileError: it is damaged, not a state file, of a newer version, or cannot be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateFileError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        _check_regular(path, file)
        return _parse(path, _read_all(file))[0]
    finally:
        os.close(file)


def _open_locked(path: str, target: str) -> int:
    while True:
        try:
            file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise StateFileError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            _check_regular(path, file)
            try:
                _lock(file)
            except BlockingIOError:
                raise StateFileError(
                    f"{path}: another simulator uses this file; stop it, or use another file"
                ) from None
            # It contains codes and credentials, also if another program created it.
            os.fchmod(file, 0o600)
            with contextlib.suppress(FileNotFoundError):
                # Another simulator may have replaced it before it was locked.
                if os.path.samestat(os.stat(target), os.fstat(file)):  # noqa: PTH116 - a name as given
                    return file
        except OSError as error:
            os.close(file)
            raise StateFileError(f"{path}: cannot be used: {error.strerror}") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _check_regular(path: str, file: int) -> None:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise StateFileError(f"{path}: is not a regular file")


def _lock(file: int) -> None:
    import fcntl  # Unix only

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_all(file: int) -> bytes:
    chunks: list[bytes] = []
    while chunk := os.read(file, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _line(record: StateRecord, previous: int) -> tuple[bytes, int]:
    body = encode(record)
    checksum = zlib.crc32(body, previous)
    return b"%08x %b\n" % (checksum, body), checksum


def _parse(path: str, content: bytes) -> tuple[list[StateRecord], int, int]:
    """Return the records, the length of the valid part, and the last checksum."""
    records: list[StateRecord] = []
    size = checksum = 0
    lines = content.split(b"\n")
    lines.pop()  # the incomplete last line, or nothing
    for number, line in enumerate(lines, start=1):
        checksum = zlib.crc32(line[9:], checksum)
        record = _parse_line(line) if line[:9] == b"%08x " % checksum else None
        if record is None:
            what = "is not a state file of the simulator" if number == 1 else f"is damaged at line {number}"
            raise StateFileError(f"{path}: {what}; move it away to start without it")
        if number == 1:
            if record.get("kind") != _HEADER["kind"] or record.get("format") != FORMAT:
                raise StateFileError(f"{path}: has a format of another version; move it away to start without it")
        else:
            records.append(record)
        size += len(line) + 1
    if content and not lines and not _HEADER_START.startswith(content[: len(_HEADER_START)]):
        raise StateFileError(f"{path}: is not a state file of the simulator; move it away to start without it")
    return records, size, checksum


def _parse_line(line: bytes) -> StateRecord | None:
    try:
        value = json.loads(line[9:])
    except ValueError:
        return None
    return cast("StateRecord", value) if isinstance(value, dict) and "kind" in value else None


_HEADER_START: Final = _line(_HEADER, 0)[0]
