"""Atomic writes."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat


def atomic_write(path: str, content: bytes) -> None:
    """Write a file; what stood there before is kept, whole, until all of it is on the disk.

    A link is followed, and a file keeps its mode and its owner. What is no file, such as a pipe, is written to.

    Args:
        path: the file.
        content: all of it.

    Raises:
        OSError: it cannot be written.
    """
    before = None
    # Opened although it is replaced: a file that may not be written must not be replaced either.
    with contextlib.suppress(FileNotFoundError), open(os.open(path, os.O_WRONLY), "wb") as file:  # noqa: PTH123
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            file.write(content)
            return
    target = os.path.realpath(path)
    beside = os.path.join(os.path.dirname(target), f".bandwidth-mfa-{secrets.token_hex(8)}")  # noqa: PTH118, PTH120
    try:
        # Its mode comes from the umask, as that of any new file.
        with open(beside, "xb") as file:  # noqa: PTH123 - a name as given
            if before is not None:
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
        os.replace(beside, target)  # noqa: PTH105 - names as given
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)  # noqa: PTH108 - a name as given
        raise
