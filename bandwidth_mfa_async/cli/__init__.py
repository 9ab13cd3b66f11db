"""The command line, `bandwidth-mfa`; needs the `[cli]` extra."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_INTERRUPTED = 130


def main() -> None:
    """Run the command line, or say what to install."""
    try:
        with _nothing_to_finish():
            from ._app import app
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        print(
            f"bandwidth-mfa needs {error.name}, which is not installed; run: pip install 'bandwidth-mfa-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        app(prog_name="bandwidth-mfa")
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        # The disk under what is printed; every other one was told where it happened.
        print(f"error: the output cannot be written: {error.strerror}; what was done is done", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _nothing_to_finish() -> Generator[None]:
    """Let a Ctrl-C end the process at once, without a word.

    A `KeyboardInterrupt` may be lost in an import, or come out of it as another error.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # ignored, as under nohup, or somebody else's
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(_number: int, _frame: object) -> None:
    os._exit(_INTERRUPTED)


__all__ = ["main"]
