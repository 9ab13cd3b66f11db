"""The command line, `bandwidth-mfa`; needs the `[cli]` extra."""

from __future__ import annotations

import errno
import sys


def main() -> None:
    """Run the command line, or say what to install."""
    try:
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


__all__ = ["main"]
