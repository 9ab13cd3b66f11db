"""Colours and line wrapping for the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import click

from .._redaction import is_printable


def styled(text: str, colour: str) -> str:
    """Return the text in a colour; unchanged without a terminal, or if NO_COLOR (https://no-color.org) is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour)


def printable(text: str) -> str:
    """Return a text in which control characters and invisible characters, except line feeds, are escaped.

    File names and messages of the system may contain escape sequences, which a terminal would execute.
    """
    return "".join(char if is_printable(char) or char == "\n" else ascii(char)[1:-1] for char in text)


def wrapped(text: str, indent: int) -> str:
    """Return the text wrapped to the terminal's width; unchanged without a terminal.

    Args:
        text: one paragraph.
        indent: the column at which the text starts; further lines are indented to it.
    """
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns - indent, 20)
    return f"\n{' ' * indent}".join(textwrap.wrap(text, width)) or text
