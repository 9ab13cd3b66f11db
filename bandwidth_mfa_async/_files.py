"""Atomic file writes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from typing import Final

READER_TIMEOUT: Final = 5.0
"""Seconds to wait for a program that reads a FIFO."""


def atomic_write(path: str, content: bytes) -> None:
    """Write a file; the old content stays complete until the new content is written.

    Symbolic links are followed, and an existing file keeps its mode and owner. Write directly to anything that is not
    a regular file, such as a pipe.

    Args:
        path: the file.
        content: its new content.

    Raises:
        OSError: the file cannot be written, or it is a FIFO that no program reads within seconds (ENXIO).
    """
    original = None
    # Opened although it is replaced: do not replace a file that we may not write.
    with contextlib.suppress(FileNotFoundError), open(_open_for_writing(path), "wb") as file:
        original = os.fstat(file.fileno())
        if not stat.S_ISREG(original.st_mode):
            file.write(content)
            return
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".bandwidth-mfa-{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
    try:
        # The umask sets the mode, as for any new file.
        with open(temporary, "xb") as file:  # noqa: PTH123 - a name as given
            if original is not None:
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), original.st_uid, original.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(original.st_mode))
            file.write(content)
        os.replace(temporary, target)  # noqa: PTH105 - names as given
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - a name as given
        raise


def _open_for_writing(path: str) -> int:
    """Open an existing file; wait for the reader of a FIFO, but not for ever as the system does."""
    until = time.monotonic() + READER_TIMEOUT
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() >= until:
                raise
            time.sleep(0.02)
        else:
            os.set_blocking(descriptor, True)
            return descriptor
