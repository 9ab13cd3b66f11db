"""The command line `bandwidth-mfa`, which needs the `[cli]` extra."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from .._frames import clear_locals

if TYPE_CHECKING:
    from collections.abc import Generator


def main() -> None:
    """Run the command line, or print what to install."""
    try:
        _handle_signals_as_first_process()
        with _exit_on_interrupt():
            from ._app import app
            from ._output import replace_unencodable
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        print(
            f"bandwidth-mfa needs {error.name}, which is not installed; run: pip install 'bandwidth-mfa-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    replace_unencodable()
    try:
        app(prog_name="bandwidth-mfa")
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        # Only writing the output can fail here; commands handle errors of their own files.
        print(f"error: the output cannot be written: {error.strerror}; completed work is kept", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        clear_locals(error)  # of a crash report: numbers and codes are arguments of the command line
        raise


def _handle_signals_as_first_process() -> None:
    """End the process on SIGTERM and SIGHUP, as elsewhere: the first process of a container ignores them by default."""
    if os.getpid() == 1:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _exit)


@contextlib.contextmanager
def _exit_on_interrupt() -> Generator[None]:
    """End the process at once and silently on Ctrl-C.

    An import may swallow a `KeyboardInterrupt`, or turn it into another error.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # SIGINT is ignored, as under nohup, or another handler is installed
        return
    signal.signal(signal.SIGINT, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _exit(number: int, _frame: object) -> None:
    os._exit(128 + number)


__all__ = ["main"]
