"""The command line, `bandwidth-mfa`; needs the `[cli]` extra."""

from __future__ import annotations

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
    app(prog_name="bandwidth-mfa")


__all__ = ["main"]
