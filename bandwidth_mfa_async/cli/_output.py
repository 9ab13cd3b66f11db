"""The output of commands: consoles that respect the terminal, and streams whose failure does not end a run."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from rich.console import Console, ConsoleDimensions

if TYPE_CHECKING:
    from collections.abc import Generator

_DEFAULT_SIZE: Final = (80, 25)
BLOCKS: Final = "▏▎▍▌▋▊▉█▁▂▃▄▅▆▇"


class OutputConsole(Console):
    """A console that is a terminal only if its stream is one, whatever FORCE_COLOR says, and is never 0 columns wide.

    Args:
        stderr: whether to print on standard error.
        plain_width: the width without a terminal; None for 80, or COLUMNS.
    """

    def __init__(self, *, stderr: bool = False, plain_width: int | None = None) -> None:
        terminal = _is_terminal(sys.stderr if stderr else sys.stdout)
        super().__init__(stderr=stderr, force_terminal=terminal, width=None if terminal else plain_width)

    @property
    def size(self) -> ConsoleDimensions:
        """The width and height; COLUMNS=0, or a terminal without a size, means 80 by 25."""
        size = super().size
        return ConsoleDimensions(
            *(value if value > 0 else default for value, default in zip(size, _DEFAULT_SIZE, strict=True))
        )

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        """Set both."""
        self._width, self._height = new_size


def can_animate(console: Console) -> bool:
    """Return whether a console may show a live display: on a terminal that is not dumb, without NO_COLOR."""
    return console.is_terminal and not console.is_dumb_terminal and not console.no_color


def can_print_blocks() -> bool:
    """Return whether the encoding of standard output has the block characters of bars and sparklines."""
    try:
        BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def replace_unencodable() -> None:
    """Print a question mark instead of a character that the encoding of standard output or error does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class QuietStream:
    """A text stream that is quiet once writing has failed, instead of raising.

    It has no attribute `buffer`, so that click does not write around it.

    Args:
        stream: the stream to write to; None if the parent process closed it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()
        self.failed = stream is None
        """Whether output was lost."""

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it if the stream has failed."""
        if not self.failed:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self._fail()
        return len(text)

    def flush(self) -> None:
        """Flush the stream unless it has failed."""
        if not self.failed:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._fail()

    def _fail(self) -> None:
        self.failed = True
        # What is still buffered is dropped: flushing it at the exit would fail again and change the exit code.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def quiet_output() -> Generator[tuple[QuietStream, QuietStream]]:
    """Replace standard output and error by streams whose failure does not end a run; yield both."""
    before = sys.stdout, sys.stderr
    streams = QuietStream(sys.stdout), QuietStream(sys.stderr)
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", streams)
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before
