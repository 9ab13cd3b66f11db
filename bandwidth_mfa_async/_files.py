"""Atomic file writes."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat


def atomic_write(path: str, content: bytes) -> None:
    """Write a file; the old content stays complete until the new content is written.

    Symbolic links are followed, and an existing file keeps its mode and owner. Write directly to anything that is not
    a regular file, such as a pipe.

    Args:
        path: the file.
        content: its new content.

    Raises:
        OSError: the file cannot be written.
    """
    original = None
    # Opened although it is replaced: do not replace a file that we may not write.
    with contextlib.suppress(FileNotFoundError), open(os.open(path, os.O_WRONLY), "wb") as file:  # noqa: PTH123
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
