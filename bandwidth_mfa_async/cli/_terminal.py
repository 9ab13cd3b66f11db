"""What the terminal can show: colour, and how wide."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import click


def styled(text: str, colour: str) -> str:
    """Return the text in a colour, but only where somebody sees it and wants it (https://no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour)


def wrapped(text: str, indent: int) -> str:
    """Return the text broken to the terminal's width, further lines indented; in one line where there is no terminal.

    Args:
        text: one paragraph.
        indent: columns that stand before it.
    """
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns - indent, 20)
    return f"\n{' ' * indent}".join(textwrap.wrap(text, width)) or text
